// The thread that puts chunks on disk. It is the only one that waits for the disk.
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

#include "chunk_pool.hpp"
#include "cube.hpp"
#include "engine_events.hpp"

namespace vampires {

class DiskWriter {
  public:
    DiskWriter(ChunkPool& pool, CubeTable& cubes, EventQueue& events);
    ~DiskWriter() { stop(); }

    void start(int priority, const std::vector<int>& cpus);
    // Ends when the full queue is empty. The capture thread must have ended before.
    void stop();
    // From now on a write that fails is not tried again: its cube ends with the last frame
    // that is whole on disk. Cube::given_up does so for one cube.
    void give_up() noexcept { giving_up_.store(true); }
    void keep_trying() noexcept { giving_up_.store(false); }

    // Nothing to write at the moment.
    bool idle() const noexcept { return idle_.load(std::memory_order_acquire); }
    std::uint64_t bytes_written() const noexcept { return bytes_written_.load(); }
    // errno of the write that is being tried again, 0 when all is well.
    int failing() const noexcept { return failing_.load(); }
    std::uint32_t failing_cube() const noexcept { return failing_cube_.load(); }

  private:
    void run();
    bool write_until_done(std::uint32_t index, const Chunk& chunk);
    template <typename Write>
    bool persist(std::uint32_t index, Write write);
    void mind_room(Cube& cube) noexcept;
    static void overlay_header(const Cube& cube, const Chunk& chunk) noexcept;

    ChunkPool& pool_;
    CubeTable& cubes_;
    EventQueue& events_;
    std::thread thread_;
    std::vector<bool> cut_;  // by cube: an earlier chunk is missing, so the rest is dropped
    std::atomic<bool> stopping_{false};
    std::atomic<bool> giving_up_{false};
    std::atomic<bool> idle_{true};  // written by the thread
    std::atomic<std::uint64_t> bytes_written_{0};
    std::atomic<int> failing_{0};
    std::atomic<std::uint32_t> failing_cube_{0};
};

}  // namespace vampires
