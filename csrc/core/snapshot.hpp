// A small value that one thread writes and any thread reads whole: never half old, half new.
//
// The writer never waits. A reader that met the writer at work reads once more.
#pragma once

#include <array>
#include <atomic>
#include <bit>
#include <cstdint>
#include <thread>
#include <type_traits>

namespace vampires {

template <typename T>
class Snapshot {
    static_assert(std::is_trivially_copyable_v<T> && sizeof(T) % sizeof(std::uint64_t) == 0);

  public:
    // By the one thread that writes.
    void store(const T& value) noexcept {
        const auto words = std::bit_cast<Words>(value);
        const std::uint64_t version = version_.load(std::memory_order_relaxed);
        version_.store(version + 1, std::memory_order_relaxed);  // odd: being written
        // Whoever sees one of these sees the odd version too.
        for (std::size_t k = 0; k < kWords; ++k)
            words_[k].store(words[k], std::memory_order_release);
        version_.store(version + 2, std::memory_order_release);
    }
    // By anybody.
    T load() const noexcept {
        for (;;) {
            const std::uint64_t version = version_.load(std::memory_order_acquire);
            Words words;
            for (std::size_t k = 0; k < kWords; ++k)
                words[k] = words_[k].load(std::memory_order_acquire);
            if (version % 2 == 0 && version_.load(std::memory_order_relaxed) == version) {
                return std::bit_cast<T>(words);
            }
            std::this_thread::yield();
        }
    }

  private:
    static constexpr std::size_t kWords = sizeof(T) / sizeof(std::uint64_t);
    using Words = std::array<std::uint64_t, kWords>;

    std::atomic<std::uint64_t> version_{0};
    std::array<std::atomic<std::uint64_t>, kWords> words_{};
};

}  // namespace vampires
