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
// The queues order these steps. Several threads use `opened`, `frame_limit`, `ended_with` and
// `given_up` at one time.
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
    disk_full,
    keyword_changed,
};

enum class Opened : int { pending, open, abandoned };

struct CubeStart {
    std::uint64_t number = 0;   // of this logger, from 1
    std::uint64_t session = 0;  // of this logger, from 1; a cube has frames of one
    PixelType type{};
    std::uint32_t width = 0;
    std::uint32_t height = 0;
    std::uint32_t planned_frames = 0;
    std::uint32_t expected_frames = 0;  // fewer where what is left of the session is less
    std::size_t header_bytes = 0;
    std::size_t frame_bytes = 0;     // in the file
    bool acquisition_times = false;  // else the times of the cube are the logger's
    FrameRow first;
    std::vector<KeywordEntry> keywords;  // at the first frame
};

struct CubeEnd {
    CubeEndReason reason{};
    std::array<char, sizeof KeywordEntry::name> keyword{};  // that changed, where that ended it
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
    // The cube ends with so many; fewer than planned where its disk has no room for more.
    std::atomic<std::uint32_t> frame_limit{0};
    std::atomic<std::uint32_t> ended_with{kGrowing};  // frames, once it has ended
    std::atomic<bool> given_up{false};  // what its disk refuses is not tried again

    static constexpr std::uint32_t kGrowing = ~std::uint32_t{0};
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
