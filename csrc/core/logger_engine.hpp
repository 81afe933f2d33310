// The logger: memory, capture thread and writer thread, and the cubes that pass through them.
//
// Python drives it from one thread: it takes events, opens the file of a cube that started,
// and finishes the file of a cube that was written. docs/architecture.md shows who owns what.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <semaphore>
#include <span>
#include <string>
#include <vector>

#include "capture.hpp"
#include "chunk_pool.hpp"
#include "cube.hpp"
#include "disk_writer.hpp"
#include "engine_events.hpp"

namespace vampires {

struct EngineConfig {
    CaptureConfig capture;
    std::size_t ring_memory_bytes = std::size_t{4} << 30;
    int priority = 0;                  // SCHED_FIFO of the capture thread
    std::optional<int> disk_priority;  // of the writer thread; without: one less
    std::vector<int> cpus;             // of both threads; empty: all
};

class LoggerEngine {
  public:
    // Allocates and locks the memory. Throws std::system_error.
    explicit LoggerEngine(const EngineConfig& config);
    ~LoggerEngine();

    void start();
    // Waits for an event of either thread; false when the time is over.
    bool next_event(Event& event, std::chrono::nanoseconds timeout);

    Capture& capture() noexcept { return capture_; }
    DiskWriter& disk() noexcept { return disk_; }
    const ChunkPool& pool() const noexcept { return pool_; }
    std::size_t chunks_in_use() const noexcept { return pool_.count() - pool_.free.size(); }

    // -- a cube that started ---------------------------------------------------------------
    const CubeStart& cube_start(std::uint32_t cube) noexcept { return cubes_[cube].start; }
    struct Progress {
        std::uint32_t frames;  // in memory and on disk by now
        bool growing;
    };
    Progress cube_progress(std::uint32_t cube) noexcept;
    // It ends with so many, or at once where it has more: its disk has no room for them.
    void limit_cube(std::uint32_t cube, std::uint32_t frames) noexcept;
    // Creates its files with room for so many frames (without: as expected), see
    // CubeFile::open; `header` is what a crash leaves behind, of the size announced. Returns
    // whether the space is kept for it.
    bool open_cube(std::uint32_t cube, const CubeFileNames& names,
                   std::span<const std::byte> header, std::optional<std::uint32_t> frames = {},
                   bool required = false);
    // What its disk refuses from now on is not tried again: it ends before that.
    void give_up_cube(std::uint32_t cube) noexcept;
    // Its frames go nowhere.
    void abandon_cube(std::uint32_t cube) noexcept;

    // -- a cube that was written -----------------------------------------------------------
    const CubeEnd& cube_end(std::uint32_t cube) noexcept { return cubes_[cube].end; }
    const CubeOnDisk& cube_on_disk(std::uint32_t cube) noexcept { return cubes_[cube].disk; }
    std::vector<std::byte> cube_rows(std::uint32_t cube);
    // Keeps only the first `frames`, to make room on a full disk.
    void shrink_cube(std::uint32_t cube, std::uint32_t frames);
    // Header (of the size announced), data, padding and extension are complete and on disk when
    // this returns; the file still has its hidden name. May be repeated after an error.
    void finish_cube(std::uint32_t cube, std::span<const std::byte> header,
                     std::span<const std::byte> extension);
    // Closes the cube's files and gives its place back.
    void release_cube(std::uint32_t cube) noexcept;
    // As release_cube(), and removes what is still there under the hidden names.
    void discard_cube(std::uint32_t cube) noexcept;

    // Ends both threads; all that was captured is written first. Stop or abort before.
    void close();

  private:
    std::counting_semaphore<> bell_{0};
    EventQueue capture_events_{bell_};
    EventQueue disk_events_{bell_};
    EngineConfig config_;
    ChunkPool pool_;
    CubeTable cubes_;
    DiskWriter disk_;
    Capture capture_;
};

}  // namespace vampires
