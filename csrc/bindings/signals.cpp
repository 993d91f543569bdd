// Signal handlers run in the main thread and need the GIL. So that thread takes it for a moment, twenty times a second.
#include "bindings/signals.hpp"

#include <pybind11/pybind11.h>

#include "base/interrupt.hpp"
#include "base/system.hpp"

namespace pyrnn {

namespace {

// Where the system does not say whose signals they are, Python does, which needs the GIL. The handler's exception stays
// set in this thread, for the binding that ends by Interrupted.
bool handler_raises() {
  if (!system::may_be_main_thread()) return false;
  const PyGILState_STATE state = PyGILState_Ensure();
  const bool raised = PyErr_CheckSignals() != 0;
  PyGILState_Release(state);
  return raised;
}

}  // namespace

void watch_signals() {
  Watch::question = handler_raises;
  pybind11::register_local_exception_translator([](std::exception_ptr thrown) {
    try {
      if (thrown) std::rethrow_exception(thrown);
    } catch (const Interrupted&) {
      if (!PyErr_Occurred()) PyErr_SetNone(PyExc_KeyboardInterrupt);
    }
  });
}

}  // namespace pyrnn
