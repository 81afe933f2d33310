#include "logger_engine.hpp"

#include <algorithm>
#include <stdexcept>

namespace vampires {
namespace {

// The data begin where the header's room ends: another size would shift them.
void check_header(const Cube& cube, std::span<const std::byte> header) {
    if (header.size() == cube.start.header_bytes) return;
    throw std::invalid_argument("the header has " + std::to_string(header.size()) +
                                " bytes, the cube has room for exactly " +
                                std::to_string(cube.start.header_bytes));
}

}  // namespace

LoggerEngine::LoggerEngine(const EngineConfig& config)
    : config_(config),
      pool_(config.ring_memory_bytes, CubeTable::kCubes),
      disk_(pool_, cubes_, disk_events_),
      capture_(config.capture, pool_, cubes_, capture_events_, disk_) {}

LoggerEngine::~LoggerEngine() {
    capture_.abort();
    capture_.join();  // it begins no cube after this, so none is overlooked below
    disk_.give_up();
    for (std::uint32_t cube = 0; cube < CubeTable::kCubes; ++cube) {
        if (cubes_[cube].opened.load() == Opened::pending) abandon_cube(cube);
    }
    close();
}

void LoggerEngine::start() {
    disk_.start(config_.disk_priority.value_or(std::max(config_.priority - 1, 0)),
                config_.cpus);
    capture_.start(config_.priority, config_.cpus);
}

bool LoggerEngine::next_event(Event& event, std::chrono::nanoseconds timeout) {
    // Rung after each push, so one ring stands for at least one event in one of the queues.
    if (!bell_.try_acquire_for(timeout)) return false;
    return capture_events_.try_pop(event) || disk_events_.try_pop(event);
}

LoggerEngine::Progress LoggerEngine::cube_progress(std::uint32_t index) noexcept {
    // In this order: a cube that has not ended after the count is the one that was counted.
    const std::uint32_t growing = capture_.counters().cube_frames.load();
    const std::uint32_t ended = cubes_[index].ended_with.load();
    if (ended == Cube::kGrowing) return {growing, true};
    return {ended, false};
}

void LoggerEngine::limit_cube(std::uint32_t index, std::uint32_t frames) noexcept {
    Cube& cube = cubes_[index];
    cube.frame_limit.store(std::min(frames, cube.start.expected_frames));
}

void LoggerEngine::give_up_cube(std::uint32_t index) noexcept {
    cubes_[index].frame_limit.store(0);
    cubes_[index].given_up.store(true);
}

bool LoggerEngine::open_cube(std::uint32_t index, const CubeFileNames& names,
                             std::span<const std::byte> header,
                             std::optional<std::uint32_t> frames, bool required) {
    Cube& cube = cubes_[index];
    check_header(cube, header);
    const std::uint32_t n_frames = frames.value_or(cube.start.expected_frames);
    CubeRoom room = CubeRoom::of(header.size(), cube.start.frame_bytes, n_frames);
    room.required = required;
    cube.file.open(names, room);
    cube.header.assign(header.begin(), header.end());
    const bool reserved = cube.file.reserved();  // from here on the writer has the file
    cube.opened.store(Opened::open);
    cube.opened.notify_all();
    return reserved;
}

void LoggerEngine::abandon_cube(std::uint32_t index) noexcept {
    cubes_[index].opened.store(Opened::abandoned);
    cubes_[index].opened.notify_all();
}

std::vector<std::byte> LoggerEngine::cube_rows(std::uint32_t index) {
    Cube& cube = cubes_[index];
    return cube.disk.frames == 0 ? std::vector<std::byte>{}
                                 : cube.file.read_rows(cube.disk.frames);
}

void LoggerEngine::shrink_cube(std::uint32_t index, std::uint32_t frames) {
    Cube& cube = cubes_[index];
    if (frames >= cube.disk.frames) return;
    cube.disk.data_sum =
        cube.file.read_data_sum(cube.start.header_bytes, frames * cube.start.frame_bytes);
    cube.disk.frames = frames;
}

void LoggerEngine::finish_cube(std::uint32_t index, std::span<const std::byte> header,
                               std::span<const std::byte> extension) {
    Cube& cube = cubes_[index];
    check_header(cube, header);
    cube.file.finish(header, std::uint64_t{cube.disk.frames} * cube.start.frame_bytes,
                     extension);
}

void LoggerEngine::release_cube(std::uint32_t index) noexcept {
    cubes_[index].file.close();
    cubes_.free.try_push(index);
}

void LoggerEngine::discard_cube(std::uint32_t index) noexcept {
    cubes_[index].file.discard();
    cubes_.free.try_push(index);
}

void LoggerEngine::close() {
    capture_.join();
    disk_.stop();
}

}  // namespace vampires
