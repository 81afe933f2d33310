#include "disk_writer.hpp"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <span>

#include "thread_setup.hpp"

namespace vampires {
namespace {

constexpr auto kRetryInterval = std::chrono::milliseconds(100);
constexpr auto kStopCheckInterval = std::chrono::milliseconds(50);

}  // namespace

DiskWriter::DiskWriter(ChunkPool& pool, CubeTable& cubes, EventQueue& events)
    : pool_(pool), cubes_(cubes), events_(events), cut_(CubeTable::kCubes, false) {}

void DiskWriter::start(int priority, const std::vector<int>& cpus) {
    stopping_.store(false);
    thread_ = std::thread([this, priority, cpus] {
        const std::string note = set_up_thread("vmp-disk", priority, cpus);
        if (!note.empty()) events_.push(EventKind::note, 0, 0, note);
        run();
    });
}

void DiskWriter::stop() {
    stopping_.store(true);
    if (thread_.joinable()) thread_.join();
}

void DiskWriter::run() {
    Delivery delivery;
    for (;;) {
        if (!pool_.full.pop(delivery, kStopCheckInterval)) {
            if (stopping_.load()) return;
            continue;
        }
        idle_.store(false, std::memory_order_release);
        if (delivery.chunk != nullptr) {
            if (!cut_[delivery.cube]) {
                cut_[delivery.cube] = !write_until_done(delivery.cube, *delivery.chunk);
            }
            pool_.free.try_push(delivery.chunk);
        } else {
            cut_[delivery.cube] = false;
            events_.push(EventKind::cube_written, delivery.cube, 0, "");
        }
        idle_.store(pool_.full.size() == 0, std::memory_order_release);
    }
}

// False when the chunk did not reach the disk.
bool DiskWriter::write_until_done(std::uint32_t index, const Chunk& chunk) {
    Cube& cube = cubes_[index];
    cube.opened.wait(Opened::pending);
    if (cube.opened.load() == Opened::abandoned) return false;
    overlay_header(cube, chunk);
    const std::span<const std::byte> pages(chunk.bytes, page_ceil(chunk.used_bytes));
    const std::span<const std::byte> rows(chunk.rows, chunk.n_rows * kFrameRowBytes);
    const auto write_pages = [&] { return cube.file.write_pages(pages, chunk.file_offset); };
    if (!persist(index, write_pages)) return false;
    if (!persist(index, [&] { return cube.file.append_rows(rows); })) return false;
    bytes_written_.fetch_add(pages.size());
    if (chunk.n_rows > 0) {
        cube.disk.frames += chunk.n_rows;
        cube.disk.data_sum = chunk.sum_after_rows;
    }
    mind_room(cube);
    return true;
}

// A cube whose space could not be kept ends while what is in memory still fits, with its
// tables.
void DiskWriter::mind_room(Cube& cube) noexcept {
    if (cube.file.reserved()) return;
    const std::uint64_t waiting = (pool_.count() - pool_.free.size()) * pool_.chunk_bytes();
    const std::uint64_t frames = cube.disk.frames + waiting / cube.start.frame_bytes + 1;
    const CubeRoom tables = CubeRoom::of(cube.start.header_bytes, 0, frames);
    if (cube.file.free_bytes() < waiting + tables.total()) cube.frame_limit.store(0);
}

// Tries until it succeeds or the logger gives up; a full disk may have room again.
template <typename Write>
bool DiskWriter::persist(std::uint32_t index, Write write) {
    for (;;) {
        const int error = write();
        if (error == 0) break;
        failing_cube_.store(index);
        if (failing_.exchange(error) != error) {
            events_.push(EventKind::disk_error, index, error, std::strerror(error));
        }
        if (giving_up_.load() || cubes_[index].given_up.load()) return false;
        std::this_thread::sleep_for(kRetryInterval);
    }
    if (failing_.exchange(0) != 0) events_.push(EventKind::disk_recovered, 0, 0, "");
    return true;
}

// The capture thread leaves the header's room empty: the header is made meanwhile.
void DiskWriter::overlay_header(const Cube& cube, const Chunk& chunk) noexcept {
    if (chunk.file_offset >= cube.header.size()) return;
    const std::size_t bytes =
        std::min(cube.header.size() - chunk.file_offset, page_ceil(chunk.used_bytes));
    std::memcpy(chunk.bytes, cube.header.data() + chunk.file_offset, bytes);
}

}  // namespace vampires
