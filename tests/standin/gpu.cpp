// A CUDA device for a torch that has none: its memory is this machine's, and every op runs by way of the CPU.
//
// torch finds what it looks for on a device: an allocator (512-byte aligned, as the caching one), a guard, hooks that
// say there is one device, and kernels: a few for what is special to its memory (empty, copies, views, resizing), and
// for all others the fallback that copies operands to the CPU and results back. There is one stream, and nothing is
// asynchronous.
#include <ATen/Context.h>
#include <ATen/EmptyTensor.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <ATen/native/CPUFallback.h>
#include <ATen/ops/_reshape_alias_cpu_dispatch.h>
#include <ATen/ops/as_strided_cpu_dispatch.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/native_batch_norm.h>
#include <ATen/ops/set_cpu_dispatch.h>
#include <ATen/ops/unfold_cpu_dispatch.h>
#include <ATen/ops/view_cpu_dispatch.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <optional>

namespace {

using namespace c10;

struct Guard final : impl::DeviceGuardImplInterface {
    DeviceType type() const override { return kCUDA; }
    Device exchangeDevice(Device device) const override { return device; }
    Device getDevice() const override { return Device(kCUDA, 0); }
    void setDevice(Device) const override {}
    void uncheckedSetDevice(Device) const noexcept override {}
    Stream getStream(Device device) const override { return Stream(Stream::DEFAULT, device); }
    Stream exchangeStream(Stream stream) const override { return stream; }
    DeviceIndex deviceCount() const noexcept override { return 1; }
    void record(void**, const Stream&, DeviceIndex, EventFlag) const override {}
    void block(void*, const Stream&) const override {}
    bool queryEvent(void*) const override { return true; }
    void destroyEvent(void*, DeviceIndex) const noexcept override {}
};
C10_REGISTER_GUARD_IMPL(CUDA, Guard);

struct CUDAHooks final : at::CUDAHooksInterface {
    explicit CUDAHooks(at::CUDAHooksArgs) {}
    void init() const override {}
    bool isBuilt() const override { return true; }
    bool isAvailable() const override { return true; }
    bool hasCUDA() const override { return true; }
    bool hasPrimaryContext(DeviceIndex) const override { return true; }
    bool isPinnedPtr(const void*) const override { return false; }
    DeviceIndex deviceCount() const override { return 1; }
    DeviceIndex getCurrentDevice() const override { return 0; }
};
using at::CUDAHooksArgs;
using at::CUDAHooksRegistry;
using at::RegistererCUDAHooksRegistry;
REGISTER_CUDA_HOOKS(CUDAHooks);

struct Memory final : Allocator {
    DataPtr allocate(size_t bytes) override {
        constexpr size_t alignment = 512;
        void* address =
            bytes ? std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment) : nullptr;
        return {address, address, &std::free, Device(kCUDA, 0)};
    }
    DeleterFnPtr raw_deleter() const override { return &std::free; }
    void copy_data(void* target, const void* source, size_t bytes) const override {
        std::memcpy(target, source, bytes);
    }
};
Memory memory;
REGISTER_ALLOCATOR(kCUDA, &memory);

// ------------------------------------------------------------------------------------------------------------- ops

IntArrayRef ints(SymIntArrayRef values) { return C10_AS_INTARRAYREF_SLOW(values); }

at::Tensor on_cpu(const at::Tensor&);

// What torch.use_deterministic_algorithms asks of fresh memory.
at::Tensor filled(at::Tensor fresh) {
    const at::Context& context = at::globalContext();
    if (!context.deterministicAlgorithms() || !context.deterministicFillUninitializedMemory()) return fresh;
    if (fresh.is_floating_point() || fresh.is_complex())
        on_cpu(fresh).fill_(NAN);
    else
        on_cpu(fresh).fill_(fresh.scalar_type() == kBool ? 1 : std::numeric_limits<int8_t>::max());
    return fresh;
}

at::Tensor empty(SymIntArrayRef size, std::optional<ScalarType> dtype, std::optional<Layout>, std::optional<Device>,
                 std::optional<bool>, std::optional<MemoryFormat> format) {
    const DispatchKeySet keys(DispatchKey::CUDA);
    return filled(at::detail::empty_generic(ints(size), &memory, keys, dtype_or_default(dtype), format));
}

at::Tensor empty_strided(SymIntArrayRef size, SymIntArrayRef stride, std::optional<ScalarType> dtype,
                         std::optional<Layout>, std::optional<Device>, std::optional<bool>) {
    const DispatchKeySet keys(DispatchKey::CUDA);
    return filled(at::detail::empty_strided_generic(ints(size), ints(stride), &memory, keys, dtype_or_default(dtype)));
}

// The same memory as a tensor of the CPU.
at::Tensor on_cpu(const at::Tensor& t) {
    if (t.device().is_cpu()) return t;
    at::Tensor alias = at::from_blob(t.data_ptr(), t.sizes(), t.strides(), [t](void*) {}, t.options().device(kCPU));
    alias._set_neg(t.is_neg());
    alias._set_conj(t.is_conj());
    return alias;
}

at::Tensor& copy(at::Tensor& target, const at::Tensor& source, bool) {
    on_cpu(target).copy_(on_cpu(source));
    return target;
}

const at::Tensor& resize(const at::Tensor& self, SymIntArrayRef size, std::optional<MemoryFormat> format) {
    TensorImpl* impl = self.unsafeGetTensorImpl();
    impl->set_sizes_contiguous(ints(size));
    StorageImpl* storage = impl->unsafe_storage().unsafeGetStorageImpl();
    const size_t bytes = (impl->storage_offset() + impl->numel()) * self.element_size();
    if (bytes > storage->nbytes()) {
        DataPtr larger = memory.allocate(bytes);
        if (storage->nbytes()) std::memcpy(larger.get(), storage->data(), storage->nbytes());
        storage->set_data_ptr_noswap(std::move(larger));
        storage->set_nbytes(bytes);
    }
    if (format) impl->empty_tensor_restride(*format);
    return self;
}

at::Tensor copy_and_resize(const at::Tensor& source, const at::Tensor& target) {
    if (target.sizes() != source.sizes()) target.resize_(source.sizes());
    return at::Tensor(target).copy_(source);
}

Scalar item(const at::Tensor& t) { return on_cpu(t).item(); }

at::Tensor as_strided(const at::Tensor& t, SymIntArrayRef size, SymIntArrayRef stride, std::optional<SymInt> offset) {
    const auto start = offset ? std::optional<int64_t>(offset->expect_int()) : std::nullopt;
    return at::cpu::as_strided(t, ints(size), ints(stride), start);
}

at::Tensor view(const at::Tensor& t, SymIntArrayRef size) { return at::cpu::view(t, ints(size)); }

at::Tensor alias_of_shape(const at::Tensor& t, SymIntArrayRef size, SymIntArrayRef stride) {
    return at::cpu::_reshape_alias(t, ints(size), ints(stride));
}

at::Tensor unfold(const at::Tensor& t, int64_t axis, int64_t size, int64_t step) {
    return at::cpu::unfold(t, axis, size, step);
}

at::Tensor& set_storage(at::Tensor& t, Storage storage, SymInt offset, SymIntArrayRef size, SymIntArrayRef stride) {
    return at::cpu::set_(t, std::move(storage), offset.expect_int(), ints(size), ints(stride));
}

// Its schema does not say that it writes the running statistics: the fallback would not copy them back.
std::tuple<at::Tensor, at::Tensor, at::Tensor> batch_norm(const at::Tensor& x, const std::optional<at::Tensor>& weight,
                                                          const std::optional<at::Tensor>& bias,
                                                          const std::optional<at::Tensor>& mean,
                                                          const std::optional<at::Tensor>& variance, bool training,
                                                          double momentum, double eps) {
    const auto optional = [](const std::optional<at::Tensor>& t) {
        return t && t->defined() ? std::optional<at::Tensor>(on_cpu(*t)) : std::nullopt;
    };
    const auto [y, saved_mean, saved_deviation] = at::native_batch_norm(
        on_cpu(x), optional(weight), optional(bias), optional(mean), optional(variance), training, momentum, eps);
    return {y.to(kCUDA), saved_mean.to(kCUDA), saved_deviation.to(kCUDA)};
}

void by_way_of_the_cpu(const OperatorHandle& op, torch::jit::Stack* stack) { at::native::cpu_fallback(op, stack); }

}  // namespace

TORCH_LIBRARY_IMPL(_, CUDA, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&by_way_of_the_cpu>()); }

TORCH_LIBRARY_IMPL(aten, CUDA, m) {
    m.impl("empty.memory_format", &empty);
    m.impl("empty_strided", &empty_strided);
    m.impl("copy_", &copy);
    m.impl("_copy_from_and_resize", &copy_and_resize);
    m.impl("resize_", &resize);
    m.impl("_local_scalar_dense", &item);
    m.impl("as_strided", &as_strided);
    m.impl("native_batch_norm", &batch_norm);
    m.impl("view", &view);
    m.impl("_reshape_alias", &alias_of_shape);
    m.impl("unfold", &unfold);
    m.impl("set_.source_Storage_storage_offset", &set_storage);
}
