// A bounded queue between exactly two threads, without locks: one pushes, one pops.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <semaphore>
#include <vector>

namespace vampires {

template <typename T>
class SpscQueue {
  public:
    explicit SpscQueue(std::size_t capacity) : slots_(capacity + 1) {}

    // By the producer. False when full.
    bool try_push(const T& value) noexcept {
        const std::size_t tail = tail_.load(std::memory_order_relaxed);
        const std::size_t next = following(tail);
        if (next == head_.load(std::memory_order_acquire)) return false;
        slots_[tail] = value;
        tail_.store(next, std::memory_order_release);
        items_.release();
        return true;
    }
    // By the consumer. False when empty.
    bool try_pop(T& value) noexcept { return items_.try_acquire() && take(value); }
    // By the consumer: waits; false when the time is over.
    bool pop(T& value, std::chrono::nanoseconds timeout) {
        return items_.try_acquire_for(timeout) && take(value);
    }
    // By anybody; a moment old.
    std::size_t size() const noexcept {
        const std::size_t tail = tail_.load(std::memory_order_acquire);
        const std::size_t head = head_.load(std::memory_order_acquire);
        return tail >= head ? tail - head : tail + slots_.size() - head;
    }
    std::size_t capacity() const noexcept { return slots_.size() - 1; }

  private:
    std::size_t following(std::size_t index) const noexcept {
        return index + 1 == slots_.size() ? 0 : index + 1;
    }
    bool take(T& value) noexcept {
        const std::size_t head = head_.load(std::memory_order_relaxed);
        value = slots_[head];
        head_.store(following(head), std::memory_order_release);
        return true;
    }

    std::vector<T> slots_;
    alignas(64) std::atomic<std::size_t> head_{0};  // written by the consumer
    alignas(64) std::atomic<std::size_t> tail_{0};  // written by the producer
    std::counting_semaphore<> items_{0};
};

}  // namespace vampires
