// Priority and CPUs of the calling thread, best effort.
#pragma once

#include <string>
#include <vector>

namespace vampires {

// SCHED_FIFO at `priority` (0: leave as it is) and the CPUs given (empty: all). Blocks signals,
// which are Python's. Returns what could not be had and how to get it; empty when all is well.
std::string set_up_thread(const char* name, int priority, const std::vector<int>& cpus);

}  // namespace vampires
