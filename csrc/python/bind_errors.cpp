#include <system_error>

#include "errors.hpp"
#include "module.hpp"

namespace py = pybind11;

namespace vampires {

void bind_errors(py::module_& module) {
    const auto& base = py::register_exception<StreamError>(module, "StreamError");
    py::register_exception<StreamNotFound>(module, "StreamNotFound", base);
    const auto& invalid = py::register_exception<StreamInvalid>(module, "StreamInvalid", base);
    py::register_exception<StreamIncomplete>(module, "StreamIncomplete", invalid);
    py::register_exception<StreamGone>(module, "StreamGone", base);
    py::register_exception<StreamBusy>(module, "StreamBusy", base);
    py::register_exception<StreamUnsupported>(module, "StreamUnsupported", base);
    py::register_exception_translator([](std::exception_ptr raised) {
        try {
            if (raised) std::rethrow_exception(raised);
        } catch (const std::system_error& error) {
            // OSError picks its subclass (FileNotFoundError, PermissionError, ...) by errno.
            const py::object os_error =
                py::module_::import("builtins")
                    .attr("OSError")(error.code().value(), error.what());
            PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(os_error.ptr())),
                            os_error.ptr());
        }
    });
}

}  // namespace vampires
