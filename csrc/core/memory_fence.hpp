// Fences that also order non-temporal stores, which large copies use on x86.
#pragma once

#include <atomic>

namespace vampires {

inline void full_fence() noexcept {
#if defined(__x86_64__)
    __builtin_ia32_mfence();
#endif
    std::atomic_thread_fence(std::memory_order_seq_cst);
}

inline void store_fence() noexcept {
#if defined(__x86_64__)
    __builtin_ia32_sfence();
#endif
    std::atomic_thread_fence(std::memory_order_release);
}

}  // namespace vampires
