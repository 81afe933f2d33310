// Fields that other processes share, and fences that also order non-temporal stores, which
// large copies use on x86.
#pragma once

#include <atomic>

namespace vampires {

template <typename T>
T load(T& field) noexcept {
    return std::atomic_ref<T>(field).load(std::memory_order_acquire);
}
template <typename T>
void store(T& field, T value) noexcept {
    std::atomic_ref<T>(field).store(value, std::memory_order_release);
}

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
