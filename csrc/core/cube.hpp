// A cube on its way from the camera to the disk, and who may touch which part of it when.
//
//   free       nobody's; its index waits in CubeTable::free
//   filling    the capture thread took the index, wrote `start`, and announced it
//   (cube_started)
//              Python reads `start` and calls open(); the writer thread waits for that
//   ended      the capture thread wrote `end`, then put the end mark behind the last chunk
//   written    the writer thread met the end mark, wrote `disk`, and announced it
//   (cube_written)
//              Python reads all, finishes the file and gives the index back
//
// The queues order these steps; `opened` is the only field two threads use at one time.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <vector>

#include "cube_file.hpp"
#include "frame_row.hpp"
#include "keyword_watch.hpp"
#include "pixel_type.hpp"
#include "spsc_queue.hpp"

namespace vampires {

enum class CubeEndReason : std::uint8_t {
    cube_size,
    stop,
    timeout,
    next_cube,
    utc_midnight,
    clock_step,
    stream_recreated,
    stream_gone,
    frame_limit,
    saving_paused,
};

enum class Opened : int { pending, open, abandoned };

struct CubeStart {
    std::uint64_t number = 0;   // of this logger, from 1
    std::uint64_t session = 0;  // of this logger, from 1; a cube has frames of one
    PixelType type{};
    std::uint32_t width = 0;
    std::uint32_t height = 0;
    std::uint32_t planned_frames = 0;
    std::size_t header_bytes = 0;
    std::size_t frame_bytes = 0;     // in the file
    bool acquisition_times = false;  // else the times of the cube are the logger's
    FrameRow first;
    std::vector<KeywordEntry> keywords;  // at the first frame
};

struct CubeEnd {
    CubeEndReason reason{};
    std::uint32_t frames = 0;
    std::int64_t last_time_ns = 0;  // on the clock that CubeStart names
    std::uint64_t last_cnt0 = 0;
    std::uint64_t lost = 0;         // sum of the rows' lost
    std::uint64_t lost_at_end = 0;  // after the last frame, and in no row of the next cube
    std::uint64_t torn = 0;         // of both
    std::uint32_t keyword_changes = 0;
    std::array<KeywordChange, kMaxKeywordChanges> changes{};
};

struct CubeOnDisk {
    std::uint32_t frames = 0;  // whole in file and journal; fewer than `end` says after errors
    std::uint32_t data_sum = 0;
};

struct Cube {
    CubeStart start;
    CubeEnd end;
    CubeOnDisk disk;
    CubeFile file;                  // Python opens and finishes it, the writer writes it
    std::vector<std::byte> header;  // provisional; set by Python before `opened`
    std::atomic<Opened> opened{Opened::pending};  // set by Python, awaited by the writer
};

class CubeTable {
  public:
    static constexpr std::uint32_t kCubes = 32;

    CubeTable() : free(kCubes) {
        for (std::uint32_t index = 0; index < kCubes; ++index) free.try_push(index);
    }
    Cube& operator[](std::uint32_t index) noexcept { return cubes_[index]; }

    SpscQueue<std::uint32_t> free;  // Python -> capture

  private:
    std::array<Cube, kCubes> cubes_;
};

}  // namespace vampires
