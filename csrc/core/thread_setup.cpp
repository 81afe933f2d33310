#include "thread_setup.hpp"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>

#include <cstring>

namespace vampires {

std::string set_up_thread(const char* name, int priority, const std::vector<int>& cpus) {
    sigset_t signals;
    sigfillset(&signals);
    for (const int fault : {SIGBUS, SIGSEGV, SIGFPE, SIGILL}) sigdelset(&signals, fault);
    pthread_sigmask(SIG_BLOCK, &signals, nullptr);
    pthread_setname_np(pthread_self(), name);
    prctl(PR_SET_TIMERSLACK, 1000UL, 0UL, 0UL, 0UL);  // sleeps end within a microsecond or so
    std::string note;
    if (priority > 0) {
        sched_param param = {};
        param.sched_priority = priority;
        const int error = pthread_setschedparam(pthread_self(), SCHED_FIFO, &param);
        if (error != 0) {
            note += std::string(name) + ": no real-time priority " + std::to_string(priority) +
                    " (" + std::strerror(error) + "); allow it with an rtprio limit. ";
        }
    }
    if (!cpus.empty()) {
        cpu_set_t set;
        CPU_ZERO(&set);
        for (const int cpu : cpus) {
            if (cpu >= 0 && cpu < CPU_SETSIZE) CPU_SET(cpu, &set);
        }
        const int error = pthread_setaffinity_np(pthread_self(), sizeof set, &set);
        if (error != 0) {
            note += std::string(name) + ": cannot run on the CPUs asked for (" +
                    std::strerror(error) + "). ";
        }
    }
    return note;
}

}  // namespace vampires
