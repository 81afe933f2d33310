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
        Cube& cube = cubes_[delivery.cube];
        if (delivery.chunk != nullptr) {
            if (!cut_[delivery.cube]) {
                cut_[delivery.cube] = !write_until_done(cube, *delivery.chunk);
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
bool DiskWriter::write_until_done(Cube& cube, const Chunk& chunk) {
    cube.opened.wait(Opened::pending);
    if (cube.opened.load() == Opened::abandoned) return false;
    overlay_header(cube, chunk);
    const std::span<const std::byte> pages(chunk.bytes, page_ceil(chunk.used_bytes));
    const std::span<const std::byte> rows(chunk.rows, chunk.n_rows * kFrameRowBytes);
    if (!persist([&] { return cube.file.write_pages(pages, chunk.file_offset); })) return false;
    if (!persist([&] { return cube.file.append_rows(rows); })) return false;
    bytes_written_.fetch_add(pages.size());
    if (chunk.n_rows > 0) {
        cube.disk.frames += chunk.n_rows;
        cube.disk.data_sum = chunk.sum_after_rows;
    }
    return true;
}

// Tries until it succeeds or the logger gives up; a full disk may have room again.
template <typename Write>
bool DiskWriter::persist(Write write) {
    for (;;) {
        const int error = write();
        if (error == 0) break;
        if (failing_.exchange(error) != error) {
            events_.push(EventKind::disk_error, 0, error, std::strerror(error));
        }
        if (giving_up_.load()) return false;
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
