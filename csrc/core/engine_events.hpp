// What the engine's threads tell Python, in bounded queues, one for each thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <semaphore>
#include <string>

#include "cube.hpp"
#include "spsc_queue.hpp"

namespace vampires {

enum class EventKind : std::uint8_t {
    attached,      // text: the stream; value: its inode
    refused,       // the stream cannot be logged; text: why
    stream_gone,   // text: what became of it
    cube_started,  // cube
    cube_written,  // cube
    memory_full,   // the ring memory is full, frames are being lost from now on
    memory_freed,
    disk_error,  // cube; value: errno; the write is tried again
    disk_recovered,
    saving_ended,  // of a controlled logger; text: what was saved
    note,          // text
    finished,      // capture has ended; text: why
};

struct Event {
    EventKind kind{};
    std::uint32_t cube = 0;
    std::int64_t value = 0;
    char text[240] = {};
};

class EventQueue {
  public:
    // A cube has at most one event a thread under way, so these always find room.
    static constexpr std::size_t kReserved = CubeTable::kCubes + 4;

    explicit EventQueue(std::counting_semaphore<>& bell) : events_(256), bell_(bell) {}

    // By the thread that owns the queue. What is only information gives way when nobody reads.
    void push(EventKind kind, std::uint32_t cube, std::int64_t value, const std::string& text) {
        const bool vital = kind == EventKind::cube_started || kind == EventKind::cube_written ||
                           kind == EventKind::finished;
        if (!vital && events_.size() + kReserved >= events_.capacity()) return;
        Event event{kind, cube, value, {}};
        std::snprintf(event.text, sizeof event.text, "%s", text.c_str());
        events_.try_push(event);
        bell_.release();
    }
    bool try_pop(Event& event) noexcept { return events_.try_pop(event); }

  private:
    SpscQueue<Event> events_;
    std::counting_semaphore<>& bell_;  // wakes the reader of all queues
};

}  // namespace vampires
