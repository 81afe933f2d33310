#include <time.h>

#include <cstring>
#include <vector>

#include "blocking.hpp"
#include "errors.hpp"
#include "keyword_table.hpp"
#include "module.hpp"
#include "stream_reader.hpp"
#include "stream_writer.hpp"
#include "utc_clock.hpp"

namespace py = pybind11;

namespace vampires {
namespace {

using FilePtr = std::shared_ptr<StreamFile>;

// NumPy order: slowest axis first; [y, x] for a plane, [z, y, x] for a whole 3D array.
std::vector<py::ssize_t> array_shape(const StreamShape& shape, bool one_slice) {
    std::vector<py::ssize_t> sizes;
    for (int axis = one_slice ? 1 : shape.naxis - 1; axis >= 0; --axis) {
        sizes.push_back(shape.size[axis]);
    }
    return sizes;
}

// A view of mapped memory that keeps the mapping alive.
py::array view(const FilePtr& file, const std::byte* at, bool one_slice, bool writable) {
    auto* owner = new FilePtr(file);
    const py::capsule keeper(owner, [](void* held) { delete static_cast<FilePtr*>(held); });
    py::array array(numpy_dtype(file->shape().type), array_shape(file->shape(), one_slice), {},
                    at, keeper);
    if (!writable) array.attr("flags").attr("writeable") = false;
    return array;
}

// Waits, a tenth of a second at most, for a writer that is held up while it changes them.
py::bytes keywords_raw(const FilePtr& file) {
    constexpr int kAttempts = 200;
    constexpr timespec kPause = {0, 500'000};
    std::vector<KeywordEntry> entries(file->shape().keywords);
    {
        const py::gil_scoped_release unlocked;
        KeywordReader reader(file->keyword_table());
        for (int k = 0; k < kAttempts && !reader.copy(entries).settled; ++k) {
            clock_nanosleep(CLOCK_MONOTONIC, 0, &kPause, nullptr);
        }
    }
    return {reinterpret_cast<const char*>(entries.data()), file->keyword_bytes()};
}

// What a stream's metadata says, raw, for tools and tests.
py::dict metadata(const FilePtr& file) {
    const StreamMetadata md = file->metadata();
    const StreamShape& shape = file->shape();
    py::dict fields;
    fields["version"] = printable({md.version, strnlen(md.version, sizeof md.version)});
    fields["name"] = printable({md.name, strnlen(md.name, sizeof md.name)});
    fields["naxis"] = shape.naxis;
    fields["size"] = py::make_tuple(shape.size[0], shape.size[1], shape.size[2]);
    fields["nelement"] = md.nelement;
    fields["datatype"] = md.datatype;
    fields["imagetype"] = shape.imagetype;
    fields["cnt0"] = md.cnt0;
    fields["cnt1"] = md.cnt1;
    fields["cnt2"] = md.cnt2;
    fields["write"] = md.write;
    fields["sem"] = shape.semaphores;
    fields["NBkw"] = shape.keywords;
    fields["CBsize"] = shape.cb_size;
    fields["CBindex"] = md.cb_index;
    fields["CBcycle"] = md.cb_cycle;
    fields["imdatamemsize"] = md.imdatamemsize;
    fields["shared"] = md.shared;
    fields["location"] = md.location;
    fields["inode"] = md.inode;
    fields["creator_pid"] = md.creator_pid;
    fields["creation_ns"] = to_ns(md.creationtime);
    fields["atime_ns"] = to_ns(md.atime);
    fields["writetime_ns"] = to_ns(md.writetime);
    return fields;
}

py::dict layout(const FilePtr& file) {
    const StreamLayout& at = file->layout();
    py::dict offsets;
    offsets["array"] = at.data;
    offsets["kw"] = at.keywords;
    offsets["semfile"] = at.semaphores;
    offsets["semlog"] = at.semlog;
    offsets["semReadPID"] = at.sem_read_pid;
    offsets["semWritePID"] = at.sem_write_pid;
    offsets["semctrl"] = at.sem_ctrl;
    offsets["semstatus"] = at.sem_status;
    offsets["streamproctrace"] = at.proctrace;
    offsets["atimearray"] = at.atime_array;
    offsets["writetimearray"] = at.writetime_array;
    offsets["cntarray"] = at.cnt_array;
    offsets["CircBuff_md"] = at.cb_metadata;
    offsets["CBimdata"] = at.cb_data;
    offsets["EOF"] = at.file_bytes;
    return offsets;
}

void bind_file(py::module_& module) {
    py::class_<StreamFile, FilePtr>(module, "StreamFile", "A stream mapped and checked.")
        .def_static("open", &StreamFile::open, py::arg("directory"), py::arg("name"))
        .def_property_readonly("name", &StreamFile::name)
        .def_property_readonly("path", &StreamFile::path)
        .def_property_readonly("inode", &StreamFile::inode)
        .def_property_readonly("metadata", &metadata)
        .def_property_readonly("layout", &layout)
        .def_property_readonly("temporal_ring",
                               [](const StreamFile& f) { return f.shape().temporal_ring(); })
        .def_property_readonly("dtype",
                               [](const StreamFile& f) { return numpy_dtype(f.shape().type); })
        .def_property_readonly(
            "shape",
            [](const StreamFile& f) {
                return py::tuple(py::cast(array_shape(f.shape(), f.shape().temporal_ring())));
            })
        .def_property_readonly("fate",
                               [](const StreamFile& f) {
                                   constexpr const char* kNames[] = {"same", "replaced",
                                                                     "removed", "truncated"};
                                   return kNames[static_cast<int>(f.fate())];
                               })
        .def("keywords_raw", &keywords_raw)
        .def(
            "view",
            [](const FilePtr& file) { return view(file, file->pixels(), false, false); },
            "The whole array [z, y, x], [y, x] or [x] as a read-only view of shared memory.");
}

// One attempt within `slice`: waits, copies, confirms.
enum class ReadState { pending, read, gone };

ReadState try_read(StreamReader& reader, FrameTicket& ticket, std::byte* out,
                   std::chrono::nanoseconds slice) {
    const std::int64_t deadline_ns = monotonic_now_ns() + slice.count();
    for (;;) {
        const std::chrono::nanoseconds left(
            std::max<std::int64_t>(deadline_ns - monotonic_now_ns(), 0));
        const Wake wake = reader.wait(left);
        if (wake == Wake::gone) return ReadState::gone;
        if (wake != Wake::frame) return ReadState::pending;
        if (reader.begin(ticket)) {
            if (out != nullptr) std::memcpy(out, ticket.pixels, reader.frame_bytes());
            if (reader.confirm(ticket)) return ReadState::read;
        }
        if (left.count() == 0) return ReadState::pending;
    }
}

ReadState try_newest(StreamReader& reader, FrameTicket& ticket, std::byte* out,
                     std::chrono::nanoseconds slice) {
    const std::int64_t deadline_ns = monotonic_now_ns() + slice.count();
    do {
        if (reader.file().broken()) return ReadState::gone;
        if (!reader.begin_newest(ticket)) continue;
        if (out != nullptr) std::memcpy(out, ticket.pixels, reader.frame_bytes());
        if (reader.confirm(ticket)) return ReadState::read;
    } while (monotonic_now_ns() < deadline_ns);
    return ReadState::pending;
}

class PyReader {
  public:
    PyReader(const FilePtr& file, bool rolling, bool from_oldest, std::int64_t tai_offset_ns)
        : file_(file),
          reader_(file, {rolling, from_oldest, tai_offset_ns}),
          one_slice_(rolling || file->shape().temporal_ring()) {}

    // (array, info), or None when the time is over. Negative timeout: for ever.
    py::object read(double timeout_s, bool copy, bool newest) {
        py::array array;
        std::byte* out = nullptr;
        if (copy) {
            array = py::array(numpy_dtype(file_->shape().type),
                              array_shape(file_->shape(), one_slice_));
            out = static_cast<std::byte*>(array.mutable_data());
        }
        FrameTicket ticket;
        const auto attempt = newest ? try_newest : try_read;
        const ReadState state = wait_for_python<ReadState>(
            timeout_s, ReadState::pending, [&](std::chrono::nanoseconds slice) {
                return attempt(reader_, ticket, out, slice);
            });
        if (state == ReadState::pending) return py::none();
        if (state == ReadState::gone) throw StreamGone(gone_text());
        if (!copy) array = view(file_, ticket.pixels, one_slice_, false);
        return py::make_tuple(array, ticket.info);
    }

    std::string gone_text() const {
        constexpr const char* kFates[] = {"is gone", "was re-created", "was removed",
                                          "was truncated by another program"};
        return "stream '" + file_->name() + "' " + kFates[static_cast<int>(file_->fate())] +
               "; open it again";
    }

    const StreamReader& reader() const { return reader_; }
    std::vector<py::ssize_t> shape() const { return array_shape(file_->shape(), one_slice_); }

  private:
    FilePtr file_;
    StreamReader reader_;
    bool one_slice_;
};

void bind_reader(py::module_& module) {
    py::class_<FrameInfo>(module, "FrameInfo", R"(What is known of a frame.

cnt0, cnt1: the stream's counters. acquired_ns, written_ns: nanoseconds since 1970 UTC, 0 when
the stream gives none. lost: frames missing just before this one, of which torn were caught half
overwritten. flags: bits of vampires.frame_table.FrameFlag.)")
        .def_readonly("cnt0", &FrameInfo::cnt0)
        .def_readonly("cnt1", &FrameInfo::cnt1)
        .def_readonly("acquired_ns", &FrameInfo::acquired_ns)
        .def_readonly("written_ns", &FrameInfo::written_ns)
        .def_readonly("lost", &FrameInfo::lost)
        .def_readonly("torn", &FrameInfo::torn)
        .def_readonly("flags", &FrameInfo::flags)
        .def("__repr__", [](const FrameInfo& info) {
            return "FrameInfo(cnt0=" + std::to_string(info.cnt0) +
                   ", cnt1=" + std::to_string(info.cnt1) +
                   ", acquired_ns=" + std::to_string(info.acquired_ns) +
                   ", written_ns=" + std::to_string(info.written_ns) +
                   ", lost=" + std::to_string(info.lost) +
                   ", torn=" + std::to_string(info.torn) +
                   ", flags=" + std::to_string(info.flags) + ")";
        });

    py::class_<PyReader>(module, "StreamReader")
        .def(py::init<const FilePtr&, bool, bool, std::int64_t>(), py::arg("file"),
             py::arg("rolling") = false, py::arg("from_oldest") = false,
             py::arg("tai_offset_ns") = -1)
        .def(
            "read",
            [](PyReader& r, double timeout_s, bool copy) {
                return r.read(timeout_s, copy, false);
            },
            py::arg("timeout_s") = -1.0, py::arg("copy") = true)
        .def(
            "newest",
            [](PyReader& r, double timeout_s, bool copy) {
                return r.read(timeout_s, copy, true);
            },
            py::arg("timeout_s") = 1.0, py::arg("copy") = true)
        .def_property_readonly("shape",
                               [](const PyReader& r) { return py::tuple(py::cast(r.shape())); })
        .def_property_readonly("newest_cnt0",
                               [](const PyReader& r) { return r.reader().newest_cnt0(); })
        .def_property_readonly("last_cnt0",
                               [](const PyReader& r) { return r.reader().last_cnt0(); })
        .def_property_readonly("unread", [](const PyReader& r) { return r.reader().unread(); });
}

class PyWriter {
  public:
    explicit PyWriter(StreamWriter writer) : writer_(std::move(writer)) {}

    py::array next_slot() { return view(writer_.file(), writer_.next_slot(), ring(), true); }
    std::uint64_t publish(std::int64_t acquired_ns, const py::bytes& keywords) {
        set_each(keywords);
        return published(acquired_ns);
    }
    std::uint64_t write(const py::array& frame, std::int64_t acquired_ns,
                        const py::bytes& keywords) {
        const py::array pixels = checked(frame);
        std::byte* slot = writer_.next_slot();
        try {
            set_each(keywords);
        } catch (...) {
            writer_.abandon();
            throw;
        }
        const void* source = pixels.data();
        {
            const py::gil_scoped_release unlocked;
            std::memcpy(slot, source, writer_.frame_bytes());
        }
        return published(acquired_ns);
    }
    void set_keywords(const std::string& raw) {
        if (!writer_.set_keywords(entries(raw))) {
            throw py::value_error(no_room(raw.size() / sizeof(KeywordEntry)));
        }
    }
    void set_each(const std::string& raw) {
        for (const KeywordEntry& entry : entries(raw)) {
            if (!writer_.set_keyword(entry)) throw py::value_error(no_room(0));
        }
    }
    const StreamWriter& writer() const { return writer_; }

  private:
    bool ring() const { return writer_.file()->shape().temporal_ring(); }

    std::uint64_t published(std::int64_t acquired_ns) {
        std::uint64_t cnt0 = 0;
        {
            const py::gil_scoped_release unlocked;
            cnt0 = writer_.publish(acquired_ns);
        }
        if (!writer_.file()->broken()) return cnt0;
        throw StreamGone("stream '" + writer_.file()->name() +
                         "' was truncated by another program; create it again");
    }
    std::string no_room(std::size_t wanted) const {
        return "stream '" + writer_.file()->name() + "' has room for " +
               std::to_string(writer_.file()->shape().keywords) + " keywords" +
               (wanted > 0 ? ", " + std::to_string(wanted) + " were given"
                           : ", all are taken") +
               "; create it with more keyword_room";
    }
    static std::vector<KeywordEntry> entries(const std::string& raw) {
        if (raw.size() % sizeof(KeywordEntry) != 0) {
            throw py::value_error("keywords come in entries of 128 bytes");
        }
        std::vector<KeywordEntry> list(raw.size() / sizeof(KeywordEntry));
        if (!list.empty()) std::memcpy(static_cast<void*>(list.data()), raw.data(), raw.size());
        return list;
    }
    py::array checked(const py::array& frame) const {
        const StreamShape& shape = writer_.file()->shape();
        const auto expected = array_shape(shape, ring());
        const py::dtype dtype = numpy_dtype(shape.type);
        const bool fits = frame.ndim() == static_cast<py::ssize_t>(expected.size()) &&
                          std::equal(expected.begin(), expected.end(), frame.shape());
        if (!fits || !frame.dtype().equal(dtype)) {
            throw py::value_error("stream '" + writer_.file()->name() +
                                  "' takes frames of shape " +
                                  py::str(py::tuple(py::cast(expected))).cast<std::string>() +
                                  " " + py::str(dtype).cast<std::string>() + ", found " +
                                  py::str(frame.attr("shape")).cast<std::string>() + " " +
                                  py::str(frame.dtype()).cast<std::string>());
        }
        return py::array::ensure(frame, py::array::c_style);
    }

    StreamWriter writer_;
};

PyWriter create_stream(const std::string& directory, const std::string& name,
                       const std::vector<std::uint32_t>& sizes, const py::dtype& dtype,
                       std::uint64_t imagetype, std::uint32_t keyword_room,
                       std::uint32_t cb_size, const std::string& version) {
    StreamSpec spec;
    if (sizes.empty() || sizes.size() > 3) throw py::value_error("a stream has 1 to 3 axes");
    if (keyword_room > UINT16_MAX)
        throw py::value_error("at most 65535 keywords fit in a stream");
    spec.shape.type = pixel_type_of(dtype);
    spec.shape.naxis = static_cast<std::uint8_t>(sizes.size());
    std::copy(sizes.begin(), sizes.end(), spec.shape.size.begin());
    spec.shape.imagetype = imagetype;
    spec.shape.keywords = static_cast<std::uint16_t>(keyword_room);
    spec.shape.cb_size = cb_size;
    spec.version = version;
    return PyWriter(StreamWriter::create(directory, name, spec));
}

void bind_writer(py::module_& module) {
    module.def("create_stream", &create_stream, py::arg("directory"), py::arg("name"),
               py::arg("sizes"), py::arg("dtype"), py::arg("imagetype"),
               py::arg("keyword_room"), py::arg("cb_size") = 0,
               py::arg("version") = kIsioVersion,
               "Creates a stream file; sizes are x, y, z as in the file.");
    py::class_<PyWriter>(module, "StreamWriter")
        .def(py::init([](const FilePtr& file) { return PyWriter(StreamWriter(file)); }))
        .def("next_slot", &PyWriter::next_slot)
        .def("publish", &PyWriter::publish, py::arg("acquired_ns") = 0,
             py::arg("keywords") = py::bytes())
        .def("write", &PyWriter::write, py::arg("frame"), py::arg("acquired_ns") = 0,
             py::arg("keywords") = py::bytes())
        .def("set_keywords", &PyWriter::set_keywords)
        .def("set_keyword", &PyWriter::set_each)
        .def_property_readonly("cnt0", [](const PyWriter& w) { return w.writer().cnt0(); })
        .def_property_readonly("file", [](const PyWriter& w) { return w.writer().file(); });
}

void sleep_until_ns(std::int64_t target_ns) {
    wait_for_python<bool>(-1.0, false, [target_ns](std::chrono::nanoseconds slice) {
        const std::int64_t left_ns = target_ns - utc_now_ns();
        if (left_ns <= 0) return true;
        const std::int64_t pause_ns = std::min<std::int64_t>(left_ns, slice.count());
        const timespec pause = {pause_ns / 1'000'000'000, pause_ns % 1'000'000'000};
        clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, nullptr);
        return utc_now_ns() >= target_ns;
    });
}

}  // namespace

void bind_streams(py::module_& module) {
    module.def("stream_directory", &stream_directory);
    module.def("list_streams", &list_streams, py::arg("directory"));
    module.def("sleep_until_ns", &sleep_until_ns, py::arg("utc_ns"),
               "Sleeps until CLOCK_REALTIME reaches utc_ns; signal handlers run meanwhile.");
    bind_file(module);
    bind_reader(module);
    bind_writer(module);
    module.attr("CIRCULAR_BUFFER") = kCircularBuffer;
    module.attr("MATH_DATA") = kMathData;
    module.attr("ZAXIS_TEMPORAL") = kZAxisTemporal;
}

}  // namespace vampires
