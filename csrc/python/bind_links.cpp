// The fast link and the copy of a stream, for Python.
#include <algorithm>
#include <cstring>
#include <utility>

#include "blocking.hpp"
#include "errors.hpp"
#include "module.hpp"
#include "stream_copy.hpp"
#include "tcp_receiver.hpp"
#include "tcp_sender.hpp"

namespace py = pybind11;

namespace vampires {
namespace {

class PyStreamCopy {
  public:
    PyStreamCopy(std::string directory, std::string name)
        : copy_(std::move(directory), std::move(name)) {}

    bool adopt(const std::vector<std::uint32_t>& sizes, const py::dtype& dtype,
               std::uint64_t imagetype, std::uint32_t keyword_room, std::uint64_t cnt0) {
        if (sizes.empty() || sizes.size() > 3)
            throw py::value_error("a stream has 1 to 3 axes");
        if (keyword_room > UINT16_MAX) {
            throw py::value_error("at most 65535 keywords fit in a stream");
        }
        StreamShape shape;
        shape.type = pixel_type_of(dtype);
        shape.naxis = static_cast<std::uint8_t>(sizes.size());
        std::copy(sizes.begin(), sizes.end(), shape.size.begin());
        shape.imagetype = imagetype;
        shape.keywords = static_cast<std::uint16_t>(keyword_room);
        const py::gil_scoped_release unlocked;
        return copy_.adopt(shape, cnt0);
    }

    void write(const py::array& frame, std::uint64_t cnt0, std::int64_t acquired_ns,
               const std::string& keywords, std::uint64_t slot) {
        check_slot(slot);
        const py::array pixels = py::array::ensure(frame, py::array::c_style);
        const py::dtype dtype = numpy_dtype(copy_.file().shape().type);
        const auto bytes = static_cast<std::uint64_t>(pixels.nbytes());
        if (!frame.dtype().equal(dtype) || bytes != copy_.frame_bytes()) {
            throw py::value_error("stream '" + copy_.name() + "' takes frames of " +
                                  std::to_string(copy_.frame_bytes()) + " bytes of " +
                                  py::str(dtype).cast<std::string>() + ", found " +
                                  std::to_string(bytes) + " of " +
                                  py::str(frame.dtype()).cast<std::string>());
        }
        const std::vector<KeywordEntry> list = entries(keywords);
        const void* source = pixels.data();
        {
            const py::gil_scoped_release unlocked;
            std::memcpy(copy_.writer().open_slot(slot), source, bytes);
            copy_.writer().publish_slot(slot, cnt0, acquired_ns, list);
        }
        if (copy_.file().broken()) {
            throw StreamGone("stream '" + copy_.name() + "' was truncated by another program");
        }
    }

    bool current() const { return copy_.current(); }
    std::uint64_t cnt0() { return adopted().writer().cnt0(); }
    std::uint64_t slots() { return adopted().slots(); }
    const std::string& path() const { return copy_.path(); }
    void close() { copy_.close(); }

  private:
    StreamCopy& adopted() {
        if (!copy_.adopted())
            throw py::value_error("stream '" + copy_.name() + "' is not adopted");
        return copy_;
    }
    void check_slot(std::uint64_t slot) {
        if (slot < adopted().slots()) return;
        throw py::value_error("slot " + std::to_string(slot) + ", expected 0 to " +
                              std::to_string(copy_.slots() - 1));
    }
    std::vector<KeywordEntry> entries(const std::string& raw) const {
        std::vector<KeywordEntry> list(raw.size() / sizeof(KeywordEntry));
        if (raw.size() % sizeof(KeywordEntry) != 0 ||
            list.size() > copy_.file().shape().keywords) {
            throw py::value_error("stream '" + copy_.name() + "' has room for " +
                                  std::to_string(copy_.file().shape().keywords) +
                                  " keywords of 128 bytes, found " +
                                  std::to_string(raw.size()) + " bytes");
        }
        if (!list.empty()) std::memcpy(static_cast<void*>(list.data()), raw.data(), raw.size());
        return list;
    }

    StreamCopy copy_;
};

void bind_copy(py::module_& module) {
    py::class_<PyStreamCopy>(module, "StreamCopy",
                             "The stream of this host that follows one of another host.")
        .def(py::init<std::string, std::string>(), py::arg("directory"), py::arg("name"))
        .def("adopt", &PyStreamCopy::adopt, py::arg("sizes"), py::arg("dtype"),
             py::arg("imagetype"), py::arg("keyword_room"), py::arg("cnt0") = 0)
        .def("write", &PyStreamCopy::write, py::arg("frame"), py::arg("cnt0"),
             py::arg("acquired_ns") = 0, py::arg("keywords") = py::bytes(), py::arg("slot") = 0)
        .def("close", &PyStreamCopy::close)
        .def_property_readonly("current", &PyStreamCopy::current)
        .def_property_readonly("cnt0", &PyStreamCopy::cnt0)
        .def_property_readonly("slots", &PyStreamCopy::slots)
        .def_property_readonly("path", &PyStreamCopy::path);
}

const char* kind_name(LinkEventKind kind) {
    constexpr const char* kNames[] = {"connected", "disconnected", "refused",
                                      "stream",    "lost",         "error"};
    return kNames[static_cast<int>(kind)];
}

template <typename Link>
std::vector<std::pair<std::string, std::string>> events(Link& link, double timeout_s) {
    std::vector<LinkEvent> taken;
    wait_for_python<bool>(timeout_s, false, [&](std::chrono::nanoseconds slice) {
        taken = link.events().take(slice);
        return !taken.empty();
    });
    std::vector<std::pair<std::string, std::string>> told;
    for (LinkEvent& event : taken) told.emplace_back(kind_name(event.kind), event.text);
    return told;
}

py::dict sender_status(const TcpSender& link) {
    constexpr const char* kStates[] = {"waiting", "connecting", "connected", "stopped"};
    const TcpSenderStatus now = link.status();
    py::dict fields;
    fields["state"] = kStates[static_cast<int>(now.state)];
    fields["stream"] = link.config().stream;
    fields["peer"] = link.config().host + ":" + std::to_string(link.config().port);
    fields["frames"] = now.frames;
    fields["lost"] = now.lost;
    fields["torn"] = now.torn;
    fields["void"] = now.void_frames;
    fields["resent"] = now.resent;
    fields["bytes"] = now.bytes;
    fields["connections"] = now.connections;
    fields["reconnects"] = now.connections > 0 ? now.connections - 1 : 0;
    fields["cnt0"] = now.cnt0;
    fields["last_error"] = now.last_error;
    return fields;
}

py::dict receiver_status(const TcpReceiver& link) {
    constexpr const char* kStates[] = {"listening", "receiving", "stopped"};
    const TcpReceiverStatus now = link.status();
    py::dict fields;
    fields["state"] = kStates[static_cast<int>(now.state)];
    fields["stream"] = now.stream;
    fields["peer"] = now.peer;
    fields["frames"] = now.frames;
    fields["lost"] = now.lost;
    fields["void"] = now.void_frames;
    fields["duplicates"] = now.duplicates;
    fields["copied"] = now.copied;
    fields["bytes"] = now.bytes;
    fields["connections"] = now.connections;
    fields["reconnects"] = now.connections > 0 ? now.connections - 1 : 0;
    fields["refused"] = now.refused;
    fields["cnt0"] = now.cnt0;
    fields["last_error"] = now.last_error;
    return fields;
}

std::vector<NetworkRange> ranges(const std::vector<std::pair<std::string, int>>& allowed) {
    std::vector<NetworkRange> list;
    for (const auto& [address, prefix] : allowed) {
        NetworkRange range;
        if (address.size() != range.address.size() || prefix < 0 || prefix > 128) {
            throw py::value_error("a network is 16 bytes and a prefix of 0 to 128 bits");
        }
        std::memcpy(range.address.data(), address.data(), address.size());
        range.prefix = static_cast<unsigned>(prefix);
        list.push_back(range);
    }
    return list;
}

template <typename Link, typename Class>
void bind_running(Class& bound) {
    bound.def("start", &Link::start)
        .def("stop", &Link::stop, py::call_guard<py::gil_scoped_release>())
        .def("events", &events<Link>, py::arg("timeout_s"))
        .def_property_readonly("thread_id", &Link::thread_id);
}

void bind_tcp(py::module_& module) {
    py::class_<TcpSender> sender(module, "TcpSender", "The sending end of the fast link.");
    sender
        .def(py::init([](std::string directory, std::string stream, std::string host,
                         std::uint16_t port, int priority, std::vector<int> cpus) {
                 return std::make_unique<TcpSender>(
                     TcpSenderConfig{std::move(directory), std::move(stream), std::move(host),
                                     port, priority, std::move(cpus)});
             }),
             py::arg("directory"), py::arg("stream"), py::arg("host"), py::arg("port"),
             py::kw_only(), py::arg("priority") = 0, py::arg("cpus") = std::vector<int>())
        .def("status", &sender_status);
    bind_running<TcpSender>(sender);

    py::class_<TcpReceiver> receiver(module, "TcpReceiver",
                                     "The receiving end of the fast link.");
    receiver
        .def(py::init([](std::string directory, std::string listen, std::uint16_t port,
                         const std::vector<std::pair<std::string, int>>& allowed,
                         std::string name, std::uint64_t max_bytes, int priority,
                         std::vector<int> cpus) {
                 return std::make_unique<TcpReceiver>(TcpReceiverConfig{
                     std::move(directory), std::move(listen), port, ranges(allowed),
                     std::move(name), max_bytes, priority, std::move(cpus)});
             }),
             py::arg("directory"), py::arg("listen"), py::arg("port"), py::arg("allowed"),
             py::kw_only(), py::arg("name") = "", py::arg("max_bytes") = std::uint64_t{4} << 30,
             py::arg("priority") = 0, py::arg("cpus") = std::vector<int>())
        .def_property_readonly("port", &TcpReceiver::port)
        .def("status", &receiver_status);
    bind_running<TcpReceiver>(receiver);
}

}  // namespace

void bind_links(py::module_& module) {
    bind_copy(module);
    bind_tcp(module);
}

}  // namespace vampires
