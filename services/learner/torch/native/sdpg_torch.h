// C ABI of libsdpg_torch: what TypeScript may ask of libtorch (services/learner/torch/ffi.ts is the
// only caller).
//
// Tensors are opaque 32-bit handles; 0 is never a tensor. A handle that was freed is recognised and
// refused, so a stale handle is an error and not a crash. All operators go through one entry,
// sdpg_call, which looks the operator up by a code that sdpg_op() gives for its name: adding an
// operator is one line in ops.cc and one in tensor.ts.
//
// No exception crosses this border. Functions that can fail say so by their return value (0 for a
// handle, a negative number otherwise) and leave one line for sdpg_last_error() of the same thread:
// action, operand shapes, reason.
//
// Shapes and strides count elements, offsets and sizes count bytes. Dtype codes are enum SdpgDtype.
// Everything here is single-caller per thread; the handle table is safe to use from several
// threads.
#ifndef SDPG_TORCH_H_
#define SDPG_TORCH_H_

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SDPG_TORCH_ABI 1
#define SDPG_EXPORT __attribute__((visibility("default")))

enum SdpgDtype {
  SDPG_FLOAT32 = 0,
  SDPG_FLOAT64 = 1,
  SDPG_INT64 = 2,
  SDPG_INT32 = 3,
  SDPG_UINT8 = 4,
  SDPG_BOOL = 5,
};

// Must equal SDPG_TORCH_ABI of the header the caller was written for.
SDPG_EXPORT int32_t sdpg_abi(void);

// Writes up to size bytes of the calling thread's last error (UTF-8, no terminator); returns its
// full length.
SDPG_EXPORT int32_t sdpg_last_error(uint8_t* text, int32_t size);

// Writes a JSON object {torch, blas, parallel, kernels} the same way.
SDPG_EXPORT int32_t sdpg_version(uint8_t* text, int32_t size);

// Threads of the fused operators (the composed operators of libtorch always run on the calling
// thread, so that no result depends on a thread count). Returns the number now in use, or -1.
SDPG_EXPORT int32_t sdpg_set_num_threads(int32_t threads);

// Instruction set of the fused operators: "avx512", "avx2" or "baseline" (at load: the best the CPU
// has). Results differ in rounding between sets. Returns 0, or -1 for one this CPU cannot run.
SDPG_EXPORT int32_t sdpg_set_kernels(const char* name);

// Handles in use in this process.
SDPG_EXPORT int32_t sdpg_live(void);

// Frees count handles; a handle that is free already is skipped. Returns how many were freed.
SDPG_EXPORT int32_t sdpg_free(const uint32_t* handles, int32_t count);

// Code of an operator, or -1 if this library has no operator of that name.
SDPG_EXPORT int32_t sdpg_op(const char* name);

// Runs an operator on tensors and numbers. numbers is read for arguments and written where an
// operator answers with numbers (size: at least 16 and at least number_count). out receives at most
// 16 handles. Returns how many, or -1.
SDPG_EXPORT int32_t sdpg_call(int32_t op, const uint32_t* tensors, int32_t tensor_count,
                              double* numbers, int32_t number_count, uint32_t* out);

// What a tensor is: info[0] dtype code, [1] number of dimensions, [2] 1 if it requires a gradient,
// [3] number of elements, [4..] shape (at most 12 dimensions). Returns 0 or -1.
SDPG_EXPORT int32_t sdpg_describe(uint32_t tensor, double* info);

// A tensor holding a copy of bytes (row-major). bytes_size must be exactly the size that dtype and
// shape imply.
SDPG_EXPORT uint32_t sdpg_from_bytes(const uint8_t* bytes, double bytes_size, int32_t dtype,
                                     const double* shape, int32_t dimensions);

// A view of memory that someone else owns and that must outlive the tensor and everything that
// shares its storage.
SDPG_EXPORT uint32_t sdpg_from_pointer(void* memory, int32_t dtype, const double* shape,
                                       int32_t dimensions);

// Copies the elements, row-major, to bytes; bytes_size must match exactly. Returns 0 or -1.
SDPG_EXPORT int32_t sdpg_to_bytes(uint32_t tensor, uint8_t* bytes, double bytes_size);

// Switches the recording of gradients on this thread; returns what it was (0 or 1).
SDPG_EXPORT int32_t sdpg_set_grad_enabled(int32_t enabled);

// Random generators (CPU, Mersenne twister of libtorch). Ids are positive and separate from tensor
// handles.
SDPG_EXPORT int32_t sdpg_generator_new(uint64_t seed);
SDPG_EXPORT int32_t sdpg_generator_free(int32_t generator);

// Maps an existing POSIX shared memory object (name starts with '/'), readable and writable. bytes
// may not exceed the object's size. Returns the address, or null.
SDPG_EXPORT void* sdpg_map_shared(const char* name, double bytes);
SDPG_EXPORT int32_t sdpg_unmap_shared(void* address, double bytes);

#ifdef __cplusplus
}
#endif

#endif  // SDPG_TORCH_H_
