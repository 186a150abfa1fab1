// Calls of ops with no Python in between. In Python, the name of such an op is an object that first tries the op's direct
// function: this takes plain arrays (aligned, of one dtype; NumPy's own, or all of another library that has DLPack's
// exchange table, such as PyTorch) to the kernel in well under a microsecond, and declines every other call: other arrays,
// arguments that make no sense, a call that a gradient tape has to see, another device. Then the op's Python function is
// called, which converts, or says what is wrong.
#pragma once

#include <functional>

#include "bindings/arrays.h"
#include "bindings/dlpack.h"
#include "tilefuse/activation.h"
#include "tilefuse/matmul.h"

namespace tilefuse::bindings {

// An array's elements in the CPU's memory, whose owner outlives the call. Strides are in elements.
struct View {
    static constexpr int most_axes = 8;

    tilefuse_dtype dtype;
    bool is_bfloat16;  // float32 numbers in 16 bits
    bool packed;       // C-contiguous
    int axes = -1;  // no array
    int64_t size;
    int64_t shape[most_axes], strides[most_axes];
    void* data;

    explicit operator bool() const { return axes >= 0; }
    int64_t last() const { return axes > 0 ? shape[axes - 1] : 1; }
    int64_t rows() const;  // the product of all axes but the last
    bool like(const View& other) const;  // of the same dtype and shape
    bool is_row(const View& other) const;  // of the same dtype, packed and as long as the other's last axis
};

// A new C-contiguous array of the caller's kind, not initialised. Another library gets it when it is filled, as it may
// look into it.
class Result : public View {
public:
    py::object take() { return library_ == nullptr ? std::move(array_) : library_->object_of(std::move(memory_)); }

private:
    friend class Arguments;
    const Library* library_ = nullptr;
    py::object array_;
    Handed memory_;
};

// The arguments of a call, in the order of the op's parameters. Every reader returns whether the argument will do.
class Arguments {
public:
    static constexpr size_t most = 13;

    bool given(size_t i) const { return values[i] != nullptr; }
    bool has(size_t i) const { return given(i) && values[i] != Py_None; }

    // A plain array of float32 or float64, whose strides are whole elements; `a` stays empty where the argument is
    // optional and not there. Also bfloat16, if it may be stored so.
    bool array(size_t i, View& a, bool stored = false);
    bool optional_array(size_t i, View& a, bool stored = false) { return !has(i) || array(i, a, stored); }
    bool packed(size_t i, View& a) { return array(i, a) && a.packed; }
    bool output(size_t i, View& a, bool stored = false);  // one that may be written to
    // The memory of a packed array of bytes, of uint8 or bool, with that shape; null: it is none.
    uint8_t* bytes(size_t i, size_t axes, const int64_t* shape, bool of_bool = false);
    // Class ids, one for each row of `scores`, and all of classes that it has.
    bool class_ids(size_t i, const View& scores, std::vector<int32_t>& ids);
    bool flag(size_t i, bool& value) const;
    bool number(size_t i, double& value) const;
    bool integer(size_t i, int64_t& value) const;
    bool pair(size_t i, int64_t& first, int64_t& second) const;  // a positive integer for both, or a tuple of two
    std::string_view text(size_t i) const;  // "" for what is no string
    bool activation(size_t i, tilefuse_activation_kind& value, double& alpha) const;
    bool precision(size_t i, tilefuse_dtype dtype, tilefuse_precision& value) const;  // of products of that dtype

    // Of the kind of the arrays that were read.
    Result result(const View& like) const { return result(like.dtype, static_cast<size_t>(like.axes), like.shape, like.is_bfloat16); }
    Result result(tilefuse_dtype dtype, size_t axes, const int64_t* shape, bool is_bfloat16 = false) const;
    Result result_of_bytes(size_t axes, const int64_t* shape, bool of_bool = false) const;  // has no dtype

    PyObject* values[most] = {};  // null: not given

private:
    bool of_kind(const Library* library);
    bool packed_tensor(size_t i, dlpack::Tensor& tensor);  // of any dtype; has no strides
    void allocate(Result& made, dlpack::DataType type, size_t axes, const int64_t* shape) const;

    const Library* library_ = nullptr;  // of the arrays that were read; null: NumPy's
    bool any_ = false;
};

// What a file adds: const Direct direct{"matmul", 2, {"a", "b", "bias"}, [](Arguments& given) { ... }};
struct Direct {
    using Run = std::function<py::object(Arguments&)>;  // returns the result, or nothing: declined

    Direct(std::string op, size_t by_position, std::vector<const char*> parameters, Run run);
    Direct(const Direct&) = delete;

    std::string op;
    size_t by_position;                   // so many may be given without their names
    std::vector<const char*> parameters;  // as in the Python function
    Run run;
};

// A small integer that is not negative, as an int has it.
bool read_size(PyObject* value, int64_t& size);

// Memory while a call lasts. The heap costs a small call more than all the rest.
class Scratch {
public:
    void* take(size_t bytes) {
        if (bytes <= sizeof small_) return small_;
        large_.reset(backend::allocate(bytes));
        return large_.get();
    }

private:
    alignas(64) char small_[2048];
    std::unique_ptr<void, void (*)(void*)> large_{nullptr, &backend::release};
};

// The gradient before an activation in a backward op: dy itself where there is none, else in memory of its own.
class BeforeActivation {
public:
    // Returns whether the arrays will do: y, the output, or z, what it was before, as the activation needs it.
    bool set(const View& dy, const View& y, const View& z);
    void* data() const { return args.dx; }
    void run(double work) const;  // that of the whole op

    tilefuse_activation_backward_args args = {};  // its activation and alpha are set before the arrays

private:
    Scratch scratch_;
};

// Whether the ranges of memory that hold the arrays' elements overlap.
bool may_overlap(const View& a, const View& b);

// Runs kernels one after the other, which do so many operations; other Python threads may run meanwhile if that takes long
// enough to be worth it. (Releasing the GIL and taking it again costs 0.1 us where nobody else wants it.)
template <class... Args> void run_directly(double work, const Args&... args) {
    constexpr double few = 2e5;
    if (work < few) return (backend::run(args), ...);
    py::gil_scoped_release release;
    (backend::run(args), ...);
}

void bind_direct(py::module_& m);

}  // namespace tilefuse::bindings
