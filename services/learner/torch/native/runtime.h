// What the parts of the binding share: the table of tensor handles, the thread's last error,
// generators, and the arguments of one operator call. The C functions of sdpg_torch.h are thin
// wrappers over this.
#pragma once

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace sdpg {

// Reasons that reach the user start with the action, so an operator throws only the reason; guard()
// adds the action.
[[noreturn]] void refuse(const std::string& reason);

uint32_t put(at::Tensor tensor);
// The tensor of a live handle; throws for one that is free or was never given out.
const at::Tensor& get(uint32_t handle);
bool release(uint32_t handle);
int32_t live();

int32_t put_generator(at::Generator generator);
at::Generator& get_generator(int32_t id);
bool release_generator(int32_t id);

void set_last_error(std::string text);
const std::string& last_error();

std::string describe(const at::Tensor& tensor);  // "float32[2, 3]"
at::ScalarType dtype_of(int32_t code);
int32_t code_of(at::ScalarType type);
const char* name_of(at::ScalarType type);

// One line that says why an exception happened, without libtorch's C++ backtrace.
std::string reason_of(const std::exception& error);

// Flushes denormals for the time of a call and no longer: the thread is also the one that runs
// JavaScript.
class FlushDenormals {
 public:
  FlushDenormals();
  ~FlushDenormals();

 private:
  uint32_t before_;
};

struct Arguments {
  const uint32_t* handles;
  int32_t handle_count;
  double* numbers;
  int32_t number_count;
  std::vector<at::Tensor> out;

  const at::Tensor& t(int32_t i) const;
  std::vector<at::Tensor> tensors(int32_t first, int32_t count) const;
  double real(int32_t i) const;
  int64_t integer(int32_t i) const;
  bool flag(int32_t i) const { return integer(i) != 0; }
  // A whole number stays an integer, as it would in Python source: int64 tensor + 1 stays int64.
  at::Scalar scalar(int32_t i) const;
  // A list written as its length followed by its elements.
  std::vector<int64_t> list(int32_t first) const;
  at::ScalarType dtype(int32_t i) const { return dtype_of(static_cast<int32_t>(integer(i))); }
  at::Generator& generator(int32_t i) const {
    return get_generator(static_cast<int32_t>(integer(i)));
  }
};

struct Operator {
  std::string name;
  int32_t tensors;  // how many tensors it takes; -1: it checks that itself
  int32_t numbers;  // how many numbers at least
  std::function<void(Arguments&)> run;
};

const std::vector<Operator>& operators();

}  // namespace sdpg
