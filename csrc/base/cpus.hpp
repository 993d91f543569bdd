// How many CPUs this process may keep busy.
#pragma once

#include <string>

namespace pyrnn {

// The CPUs this process may run on, and no more than the quota of its control group lasts for; at least 1.
int usable_cpus();

// The least quota of a control group and those above it, in whole CPUs, at least 1; 0 where there is none. `self` is
// the file that names the groups (/proc/self/cgroup), `mount` where they lie (/sys/fs/cgroup).
int quota_cpus(const std::string& self, const std::string& mount);

}  // namespace pyrnn
