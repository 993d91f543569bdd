"""What csrc/base/threads.hpp promises and no call from Python can bring about: compiled here by itself."""

import os
import shlex
import subprocess
import sysconfig
from pathlib import Path

import pytest

SOURCES = Path(__file__).resolve().parent.parent / "csrc"

PROGRAM = r"""
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>

#include "base/threads.hpp"

int failed = 0;

void check(bool good, const char* what) {
  if (!good) std::printf("%s\n", what), ++failed;
}

// What comes out of a team on which the members of a set throw their number.
template <class Throws> std::string thrown(pyrnn::Team& team, Throws throws) {
  auto job = [&](int member) {
    if (throws(member)) throw std::runtime_error(std::to_string(member));
  };
  try {
    team.run(job);
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return "nothing";
}

// On a busy machine a team is complete at times only.
std::unique_ptr<pyrnn::Team> team_of(int members) {
  for (int i = 0; i < 1000; ++i) {
    auto team = std::make_unique<pyrnn::Team>(1'000'000'000'000);
    if (team->size() == members) return team;
    team.reset();
    std::this_thread::sleep_for(std::chrono::milliseconds(30));
  }
  std::printf("no team of %d was to be had\n", members);
  std::exit(1);
}

int main() {
  pyrnn::set_num_threads(4);
  const std::unique_ptr<pyrnn::Team> four = team_of(4);
  pyrnn::Team& team = *four;
  for (int round = 0; round < 3; ++round) {
    check(thrown(team, [](int) { return false; }) == "nothing", "an error out of nowhere");
    check(thrown(team, [](int member) { return member == 0; }) == "0", "the caller's error is lost");
    for (int who = 1; who < 4; ++who)
      check(thrown(team, [&](int member) { return member == who; }) == std::to_string(who), "a worker's error is lost");
    check(thrown(team, [](int member) { return member > 1; }) == "2", "not the first of two errors");
    check(thrown(team, [](int) { return true; }) == "0", "not the first of all errors");
  }
  std::atomic<int> done{0};
  bool caught = false;
  try {
    pyrnn::in_tasks(team, 1000, [&](int, std::int64_t task) {
      ++done;
      if (task == 500) throw std::runtime_error("task");
      return false;
    });
  } catch (const std::runtime_error&) {
    caught = true;
  }
  check(caught, "a task's error is lost");
  check(done > 500, "tasks were left out before the one that failed");
  return failed;
}
"""


# Late is who takes some milliseconds more than the caller. What happens by itself on a busy machine is tried again.
LATENESS = r"""
#include <chrono>
#include <cstdio>
#include <thread>

#include "base/threads.hpp"

using std::chrono::milliseconds;

// How many there were: the caller, and a worker that takes so many milliseconds.
int team(int caller, int worker) {
  pyrnn::Team team(32'000'000, 2);
  auto job = [&](int member) { std::this_thread::sleep_for(milliseconds(member ? worker : caller)); };
  team.run(job);
  return team.size();
}

int main() {
  pyrnn::set_num_threads(2);
  bool forgiven = false, rested = false;
  for (int i = 0; i < 40 && !(forgiven && rested); ++i) {
    std::this_thread::sleep_for(milliseconds(1100));  // the longest rest
    for (int k = 0; k < 6; ++k) team(30, 30);
    if (team(0, 8) == 2 && team(0, 0) == 2) forgiven = true;
    for (int k = 0; k < 6; ++k) team(30, 30);
    if (team(0, 60) == 2) rested = team(0, 0) == 1;
  }
  if (!forgiven) std::puts("a moment's lateness ends the sharing");
  if (!rested) std::puts("a long lateness does not end it");
  return !(forgiven && rested);
}
"""


def run_compiled(program, folder, **settings):
    """Compile a program with the threads' sources, and run it with these settings, not those of conftest.py."""
    (folder / "program.cpp").write_text(program)
    compiler = shlex.split(sysconfig.get_config_var("CXX") or "c++")[0]
    command = [compiler, "-std=c++20", "-O1", "-pthread", f"-I{SOURCES}", folder / "program.cpp"]
    sources = sorted((SOURCES / "base").glob("system_*.cpp")) + [
        SOURCES / "base" / name for name in ("threads.cpp", "cpus.cpp")
    ]
    subprocess.run([*command, *sources, "-o", folder / "program"], check=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYRNN_")}
    environment |= settings
    result = subprocess.run([folder / "program"], env=environment, capture_output=True, text=True, timeout=100)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.skipif(not SOURCES.is_dir(), reason="not among the sources")
def test_what_a_worker_throws_is_thrown_in_the_caller(tmp_path):
    run_compiled(PROGRAM, tmp_path, PYRNN_WAKE="always")


@pytest.mark.skipif(not SOURCES.is_dir(), reason="not among the sources")
def test_lateness_is_paid_from_what_sharing_has_saved(tmp_path):
    run_compiled(LATENESS, tmp_path)
