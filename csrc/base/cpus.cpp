// Affinity, and the quotas of Linux' control groups: containers set those rather than the affinity.
#include "base/cpus.hpp"

#include <algorithm>
#include <fstream>
#include <sstream>
#include <thread>

#include "base/system.hpp"

namespace pyrnn {

namespace {

// Whole CPUs of a quota of so many microseconds in each period; 0 where there is none ("max" or -1).
int whole_cpus(const std::string& quota, const std::string& period) {
  std::istringstream quota_text(quota), period_text(period);
  double of_quota = 0, of_period = 0;
  if (!(quota_text >> of_quota) || !(period_text >> of_period) || of_quota <= 0 || of_period <= 0) return 0;
  return int(std::clamp(of_quota / of_period, 1.0, 1e6));
}

std::string line_of(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

// The quota in one group's folder, of version 2 or 1.
int quota_in(const std::string& folder) {
  std::istringstream both(line_of(folder + "/cpu.max"));
  std::string quota, period;
  if (both >> quota >> period) return whole_cpus(quota, period);
  return whole_cpus(line_of(folder + "/cpu.cfs_quota_us"), line_of(folder + "/cpu.cfs_period_us"));
}

}  // namespace

int quota_cpus(const std::string& self, const std::string& mount) {
  int least = 0;
  std::ifstream groups(self);
  for (std::string line; std::getline(groups, line);) {  // number:controllers:/path; no controllers in version 2
    const std::size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    if (!controllers.empty() && ("," + controllers + ",").find(",cpu,") == std::string::npos) continue;
    const std::string root = controllers.empty() ? mount : mount + "/" + controllers;
    // Inside a container the path may be that of the host, of which only the root is to be seen.
    for (std::string path = line.substr(second + 1);;) {
      if (const int cpus = quota_in(root + path); cpus > 0) least = least ? std::min(least, cpus) : cpus;
      if (path.empty() || path == "/") break;
      const std::size_t last = path.rfind('/');
      path.erase(last == std::string::npos ? 0 : last);
    }
  }
  return least;
}

int usable_cpus() {
  int cpus = system::allowed_cpus();
  if (cpus == 0) cpus = std::max(1, int(std::thread::hardware_concurrency()));
  if (const int quota = quota_cpus("/proc/self/cgroup", "/sys/fs/cgroup")) cpus = std::min(cpus, quota);
  return cpus;
}

}  // namespace pyrnn
