#include <array>
#include <string>

#include "blocking.hpp"
#include "logger_engine.hpp"
#include "module.hpp"

namespace py = pybind11;

namespace vampires {
namespace {

std::span<const std::byte> as_bytes(const py::bytes& bytes) {
    const std::string_view text = bytes;
    return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

py::bytes entry_bytes(const KeywordEntry* entries, std::size_t count) {
    return {reinterpret_cast<const char*>(entries), count * sizeof(KeywordEntry)};
}

const char* name_of(EventKind kind) {
    constexpr const char* kNames[] = {"attached",     "refused",      "stream_gone",
                                      "cube_started", "cube_written", "memory_full",
                                      "memory_freed", "disk_error",   "disk_recovered",
                                      "saving_ended", "note",         "finished"};
    return kNames[static_cast<int>(kind)];
}

std::string text_of(const CubeEnd& end) {
    constexpr const char* kTexts[] = {"cube size reached",
                                      "logging stopped",
                                      "no frame within the time-out",
                                      "next cube asked for",
                                      "UTC midnight",
                                      "clock stepped back",
                                      "stream re-created with another shape",
                                      "stream removed",
                                      "number of frames reached",
                                      "saving paused",
                                      "disk full"};
    if (end.reason == CubeEndReason::keyword_changed) {
        return "keyword " + std::string(end.keyword.data()) + " changed";
    }
    return kTexts[static_cast<int>(end.reason)];
}

py::dict start_of(LoggerEngine& engine, std::uint32_t cube) {
    const CubeStart& start = engine.cube_start(cube);
    py::dict facts;
    facts["number"] = start.number;
    facts["dtype"] = py::str(numpy_dtype(start.type));
    facts["shape"] = py::make_tuple(start.height, start.width);
    facts["planned_frames"] = start.planned_frames;
    facts["expected_frames"] = start.expected_frames;
    facts["header_bytes"] = start.header_bytes;
    facts["frame_bytes"] = start.frame_bytes;
    facts["acquisition_times"] = start.acquisition_times;
    facts["cnt0"] = start.first.cnt0;
    facts["time_ns"] =
        start.acquisition_times ? start.first.acquired_ns : start.first.logged_ns;
    facts["keywords"] = entry_bytes(start.keywords.data(), start.keywords.size());
    return facts;
}

py::dict end_of(LoggerEngine& engine, std::uint32_t cube) {
    const CubeEnd& end = engine.cube_end(cube);
    const CubeOnDisk& disk = engine.cube_on_disk(cube);
    py::list changes;
    const std::size_t kept = std::min<std::size_t>(end.keyword_changes, kMaxKeywordChanges);
    for (std::size_t k = 0; k < kept; ++k) {
        changes.append(
            py::make_tuple(end.changes[k].frame, entry_bytes(&end.changes[k].entry, 1)));
    }
    py::dict facts;
    facts["reason"] = text_of(end);
    facts["captured"] = end.frames;
    facts["frames"] = disk.frames;
    facts["data_sum"] = disk.data_sum;
    facts["lost"] = end.lost;
    facts["torn"] = end.torn;
    facts["lost_at_end"] = end.lost_at_end;
    facts["changes"] = changes;
    facts["n_changes"] = end.keyword_changes;
    return facts;
}

py::dict status_of(LoggerEngine& engine) {
    constexpr const char* kStates[] = {"off", "armed", "on", "ending"};
    // Before the counters: what a session that is over came to is all in them.
    const SavingStatus saving = engine.capture().saving_status();
    const CaptureCounters& counters = engine.capture().counters();
    py::dict status;
    status["saving"] = kStates[saving.state];
    status["session"] = saving.session;
    status["session_frames"] = saving.frames;
    status["session_cubes"] = saving.cubes;
    status["session_lost"] = saving.lost;
    status["session_torn"] = saving.torn;
    status["first_cnt0"] = saving.first_cnt0;
    status["first_ns"] = saving.first_ns;
    status["end_cnt0"] = saving.end_cnt0;
    status["newest_cnt0"] = saving.newest_cnt0;
    status["newest_ns"] = saving.newest_ns;
    status["frames"] = counters.frames.load();
    status["lost"] = counters.lost.load();
    status["torn"] = counters.torn.load();
    status["bytes"] = counters.bytes.load();
    status["cubes"] = counters.cubes.load();
    status["cube_frames"] = counters.cube_frames.load();
    status["cube_planned"] = counters.cube_planned.load();
    status["last_cnt0"] = counters.last_cnt0.load();
    status["last_frame_ns"] = counters.last_frame_ns.load();
    status["attached"] = counters.attached.load();
    status["memory_full"] = counters.memory_full.load();
    status["keywords_unsettled"] = counters.keywords_unsettled.load();
    status["chunks_in_use"] = engine.chunks_in_use();
    status["chunks"] = engine.pool().count();
    status["bytes_written"] = engine.disk().bytes_written();
    status["disk_errno"] = engine.disk().failing();
    status["disk_cube"] = engine.disk().failing_cube();
    return status;
}

// (kind, cube, value, text), or None when the time is over.
py::object next_event(LoggerEngine& engine, double timeout_s) {
    Event event;
    const bool got = wait_for_python<bool>(
        timeout_s, false,
        [&](std::chrono::nanoseconds slice) { return engine.next_event(event, slice); });
    if (!got) return py::none();
    return py::make_tuple(name_of(event.kind), event.cube, event.value, event.text);
}

std::chrono::nanoseconds timeout_of(double seconds) {
    return std::chrono::nanoseconds(static_cast<std::int64_t>(seconds * 1e9));
}

SavingLimits limits_of(std::optional<std::uint64_t> max_cubes,
                       std::optional<std::uint64_t> max_frames) {
    SavingLimits limits;
    if (max_cubes) limits.cubes = *max_cubes;
    if (max_frames) limits.frames = *max_frames;
    return limits;
}

std::unique_ptr<LoggerEngine> make_engine(
    const std::string& directory, const std::string& stream, std::uint32_t cube_size,
    std::size_t ring_memory_bytes, std::size_t header_bytes, std::uint16_t header_keywords,
    bool rolling, double timeout_s, std::optional<std::uint64_t> max_frames,
    std::optional<std::uint64_t> max_cubes, int priority, const std::vector<int>& cpus,
    std::int64_t tai_offset_ns, bool controlled, std::optional<int> disk_priority,
    const std::vector<std::string>& new_cube_keywords) {
    EngineConfig config;
    config.capture.directory = directory;
    config.capture.stream = stream;
    config.capture.cube_size = cube_size;
    config.capture.header_bytes = header_bytes;
    config.capture.header_keywords = header_keywords;
    config.capture.rolling = rolling;
    config.capture.tai_offset_ns = tai_offset_ns;
    config.capture.timeout = timeout_of(timeout_s);
    config.capture.controlled = controlled;
    config.capture.new_cube_keywords = new_cube_keywords;
    if (max_frames) config.capture.max_frames = *max_frames;
    if (max_cubes) config.capture.max_cubes = *max_cubes;
    config.ring_memory_bytes = ring_memory_bytes;
    config.priority = priority;
    config.disk_priority = disk_priority;
    config.cpus = cpus;
    const py::gil_scoped_release unlocked;
    return std::make_unique<LoggerEngine>(config);
}

CubeFileNames names_of(const std::string& data, const std::string& journal) {
    return {data, journal};
}

}  // namespace

void bind_engine(py::module_& module) {
    using Unlocked = py::call_guard<py::gil_scoped_release>;
    py::class_<LoggerEngine>(module, "LoggerEngine",
                             "Capture and disk threads of a logger; drive it from one thread.")
        .def(py::init(&make_engine), py::kw_only(), py::arg("directory"), py::arg("stream"),
             py::arg("cube_size"), py::arg("ring_memory_bytes"), py::arg("header_bytes"),
             py::arg("header_keywords"), py::arg("rolling") = false, py::arg("timeout_s") = 0.0,
             py::arg("max_frames") = py::none(), py::arg("max_cubes") = py::none(),
             py::arg("priority") = 0, py::arg("cpus") = std::vector<int>{},
             py::arg("tai_offset_ns") = -1, py::arg("controlled") = false,
             py::arg("disk_priority") = py::none(),
             py::arg("new_cube_keywords") = std::vector<std::string>())
        .def("start", &LoggerEngine::start)
        .def("next_event", &next_event, py::arg("timeout_s"))
        .def("status", &status_of)
        .def("stop", [](LoggerEngine& e) { e.capture().stop(); })
        .def("abort", [](LoggerEngine& e) { e.capture().abort(); })
        .def("give_up_disk", [](LoggerEngine& e) { e.disk().give_up(); })
        .def(
            "begin_saving",
            [](LoggerEngine& e, std::int64_t start_ns, std::optional<std::uint64_t> max_cubes,
               std::optional<std::uint64_t> max_frames) {
                return e.capture().begin_saving(start_ns, limits_of(max_cubes, max_frames));
            },
            py::arg("start_ns"), py::arg("max_cubes"), py::arg("max_frames"), Unlocked())
        .def(
            "end_saving",
            [](LoggerEngine& e, std::int64_t stop_ns, bool whole_cube) {
                return e.capture().end_saving(stop_ns, whole_cube);
            },
            py::arg("stop_ns"), py::arg("whole_cube"), Unlocked())
        .def("set_timeout",
             [](LoggerEngine& e, double seconds) {
                 e.capture().set_timeout(timeout_of(seconds));
             })
        .def("next_cube", [](LoggerEngine& e) { e.capture().next_cube(); })
        .def(
            "end_cube",
            [](LoggerEngine& e, std::uint64_t number, const std::string& keyword) {
                return e.capture().end_cube(number, keyword);
            },
            py::arg("number"), py::arg("keyword"))
        .def("set_cube_size",
             [](LoggerEngine& e, std::uint32_t frames) { e.capture().set_cube_size(frames); })
        .def("set_header",
             [](LoggerEngine& e, std::size_t bytes, std::uint16_t keywords) {
                 e.capture().set_header(bytes, keywords);
             })
        .def_property_readonly("lock_note",
                               [](const LoggerEngine& e) { return e.pool().lock_note(); })
        .def_property_readonly("memory_bytes",
                               [](const LoggerEngine& e) { return e.pool().total_bytes(); })
        .def("cube_start", &start_of)
        .def("cube_end", &end_of)
        .def(
            "open_cube",
            [](LoggerEngine& e, std::uint32_t cube, const std::string& data,
               const std::string& journal, const py::bytes& header,
               std::optional<std::uint32_t> frames, bool required) {
                const auto header_bytes = as_bytes(header);
                const py::gil_scoped_release unlocked;
                return e.open_cube(cube, names_of(data, journal), header_bytes, frames,
                                   required);
            },
            py::arg("cube"), py::arg("data"), py::arg("journal"), py::arg("header"),
            py::arg("frames") = py::none(), py::arg("required") = false)
        .def("cube_progress",
             [](LoggerEngine& e, std::uint32_t cube) {
                 const LoggerEngine::Progress progress = e.cube_progress(cube);
                 return py::make_tuple(progress.frames, progress.growing);
             })
        .def("limit_cube", &LoggerEngine::limit_cube)
        .def("give_up_cube", &LoggerEngine::give_up_cube)
        .def("abandon_cube", &LoggerEngine::abandon_cube)
        .def("cube_rows",
             [](LoggerEngine& e, std::uint32_t cube) {
                 const std::vector<std::byte> rows = e.cube_rows(cube);
                 return py::bytes(reinterpret_cast<const char*>(rows.data()), rows.size());
             })
        .def("shrink_cube", &LoggerEngine::shrink_cube, Unlocked())
        .def("finish_cube",
             [](LoggerEngine& e, std::uint32_t cube, const py::bytes& header,
                const py::bytes& extension) {
                 const auto header_bytes = as_bytes(header);
                 const auto extension_bytes = as_bytes(extension);
                 const py::gil_scoped_release unlocked;
                 e.finish_cube(cube, header_bytes, extension_bytes);
             })
        .def("release_cube", &LoggerEngine::release_cube)
        .def("discard_cube", &LoggerEngine::discard_cube)
        .def("close", &LoggerEngine::close, Unlocked());
    module.def("rename_new", &rename_new, py::arg("source"), py::arg("target"), Unlocked(),
               "Renames without ever replacing; False when the target exists.");
    module.def(
        "cube_room_bytes",
        [](std::uint64_t header_bytes, std::uint64_t frame_bytes, std::uint64_t frames) {
            return CubeRoom::of(header_bytes, frame_bytes, frames).total();
        },
        py::arg("header_bytes"), py::arg("frame_bytes"), py::arg("frames"),
        "Disk space for a cube: pixels, table, sidecar, journal, and what must stay free.");
    module.def("sync_directory", &sync_directory, py::arg("directory"), Unlocked());
}

}  // namespace vampires
