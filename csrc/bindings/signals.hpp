// Python's signals during a call that runs without the GIL.
#pragma once

namespace pyrnn {

// From now on calls look for signals, and end where a handler raises: a Ctrl-C does not wait for the end of the call.
void watch_signals();

}  // namespace pyrnn
