// Fused perceptrons over tiles of samples. A tile's extent follows from the network's widths alone,
// every tile leaves its own partial gradient, and partial gradients are added in tile order:
// threads decide only who computes a tile.

#include "mlp.h"

#include <torch/csrc/autograd/custom_function.h>

#include <atomic>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <sstream>
#include <vector>

#include "mlp_kernels.h"
#include "optim.h"
#include "runtime.h"
#include "scratch.h"
#include "workers.h"

namespace sdpg {

namespace avx512 {
extern const MlpKernels table;
}
namespace avx2 {
extern const MlpKernels table;
}
namespace baseline {
extern const MlpKernels table;
}

namespace {

// Best first.
std::vector<const MlpKernels*> runnable() {
  std::vector<const MlpKernels*> all;
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw")) {
    all.push_back(&avx512::table);
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) all.push_back(&avx2::table);
#endif
  all.push_back(&baseline::table);
  return all;
}

std::atomic<const MlpKernels*>& chosen() {
  static std::atomic<const MlpKernels*> kernels{runnable().front()};
  return kernels;
}

}  // namespace

const MlpKernels& kernels() { return *chosen().load(); }

bool choose_kernels(const char* name) {
  for (const MlpKernels* each : runnable()) {
    if (std::strcmp(each->name, name) == 0) {
      chosen() = each;
      return true;
    }
  }
  return false;
}

int32_t tile_blocks(const MlpNet& net) {
  size_t features = 0;
  for (int32_t l = 0; l <= net.hidden + 1; ++l) features += 3 * static_cast<size_t>(net.widths[l]);
  const size_t fitting = (768 * 1024) / (features * kBlock * sizeof(float));
  return static_cast<int32_t>(fitting < 1 ? 1 : fitting > 8 ? 8 : fitting);
}

namespace {

void check_floats(const at::Tensor& t, const std::string& what) {
  if (t.scalar_type() != at::kFloat || !t.device().is_cpu() || !t.is_contiguous()) {
    refuse(what + " must be a contiguous float32 tensor in main memory, got " + describe(t));
  }
}

std::string shape_text(std::initializer_list<int64_t> sizes) {
  std::ostringstream out;
  const char* separator = "[";
  for (const int64_t size : sizes) {
    out << separator << size;
    separator = ", ";
  }
  out << ']';
  return out.str();
}

// Reads the widths off the parameters and checks each against the one before.
MlpNet net_of(const std::vector<at::Tensor>& parameters, int64_t input, double eps) {
  if (parameters.size() < 2 || parameters.size() % 4 != 2) {
    refuse("expected 4 parameters a hidden layer and 2 for the last, got " +
           std::to_string(parameters.size()));
  }
  MlpNet net;
  net.hidden = static_cast<int32_t>(parameters.size() / 4);
  if (net.hidden > kMaxHiddenLayers)
    refuse("at most " + std::to_string(kMaxHiddenLayers) + " hidden layers are supported");
  net.eps = static_cast<float>(eps);
  net.widths[0] = static_cast<int32_t>(input);
  for (int32_t l = 0; l <= net.hidden; ++l) {
    const std::string layer =
        l < net.hidden ? "hidden layer " + std::to_string(l) : "the output layer";
    const at::Tensor& weight = parameters[4 * l];
    check_floats(weight, "weight of " + layer);
    if (weight.dim() != 2 || weight.size(1) != net.widths[l]) {
      refuse("weight of " + layer + ": expected [N, " + std::to_string(net.widths[l]) + "], got " +
             describe(weight));
    }
    if (weight.size(0) < 1 || weight.size(0) > (1 << 20))
      refuse("width of " + layer + " is out of range");
    net.widths[l + 1] = static_cast<int32_t>(weight.size(0));
    const int32_t vectors = l < net.hidden ? 3 : 1;
    for (int32_t i = 1; i <= vectors; ++i) {
      const at::Tensor& vector = parameters[4 * l + i];
      check_floats(vector, "parameter of " + layer);
      if (vector.dim() != 1 || vector.size(0) != weight.size(0)) {
        refuse("parameter of " + layer + ": expected " + shape_text({weight.size(0)}) + ", got " +
               describe(vector));
      }
    }
    for (int32_t i = 0; i <= vectors; ++i)
      net.parameters[4 * l + i] = parameters[4 * l + i].data_ptr<float>();
  }
  return net;
}

size_t parameter_count(const std::vector<at::Tensor>& parameters) {
  size_t count = 0;
  for (const at::Tensor& p : parameters) count += p.numel();
  return count;
}

at::Tensor forward_rows(const MlpNet& net, const at::Tensor& x) {
  const int64_t rows = x.size(0);
  const int32_t width = net.widths[0], outputs = net.widths[net.hidden + 1];
  at::Tensor y = at::empty({rows, outputs}, x.options());
  const float* in = x.data_ptr<float>();
  float* out = y.data_ptr<float>();
  const MlpKernels& k = kernels();
  // A task is a run of blocks long enough to be worth handing over.
  constexpr int64_t kRun = 8;
  const int64_t blocks = (rows + kBlock - 1) / kBlock;
  const int32_t tasks = static_cast<int32_t>((blocks + kRun - 1) / kRun);
  const size_t floats = round_up(k.forward_floats(net));
  Scratch scratch(floats * (tasks > 1 ? workers::threads() : 1));
  workers::run(tasks, [&](int32_t task, int32_t thread) {
    const int64_t end = std::min(blocks, (task + 1) * kRun);
    for (int64_t b = task * kRun; b < end; ++b) {
      const int64_t first = b * kBlock;
      k.forward_block(net, in + first * width,
                      static_cast<int32_t>(std::min<int64_t>(kBlock, rows - first)),
                      out + first * outputs, scratch.data() + floats * thread);
    }
  });
  return y;
}

class MlpFunction : public torch::autograd::Function<MlpFunction> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x,
                            at::TensorList list, double eps) {
    const std::vector<at::Tensor> parameters = list.vec();
    std::vector<at::Tensor> saved = parameters;
    saved.push_back(x);
    context->save_for_backward(saved);
    context->saved_data["eps"] = eps;
    return forward_rows(net_of(parameters, x.size(1), eps), x);
  }

  static std::vector<at::Tensor> backward(torch::autograd::AutogradContext* context,
                                          std::vector<at::Tensor> output) {
    std::vector<at::Tensor> parameters = context->get_saved_variables();
    const at::Tensor x = parameters.back();
    parameters.pop_back();
    const double eps = context->saved_data["eps"].toDouble();
    const MlpNet net = net_of(parameters, x.size(1), eps);
    const at::Tensor dy = output[0].contiguous();
    const int64_t rows = x.size(0);
    const int32_t width = net.widths[0], outputs = net.widths[net.hidden + 1];
    at::Tensor dx = x.requires_grad() ? at::empty_like(x) : at::Tensor();

    const MlpKernels& k = kernels();
    const int32_t per_tile = tile_blocks(net);
    const int64_t tile_rows = static_cast<int64_t>(per_tile) * kBlock;
    const int32_t tiles = static_cast<int32_t>((rows + tile_rows - 1) / tile_rows);
    const size_t size = parameter_count(parameters), stride = round_up(size);
    const size_t floats = round_up(k.backward_floats(net, per_tile));
    at::Tensor flat = at::zeros({static_cast<int64_t>(size)}, x.options());
    if (tiles > 0) {
      Scratch parts(stride * tiles), scratch(floats * (tiles > 1 ? workers::threads() : 1));
      workers::run(tiles, [&](int32_t tile, int32_t thread) {
        const int64_t first = tile * tile_rows;
        k.backward_tile(net, x.data_ptr<float>() + first * width, nullptr,
                        static_cast<int32_t>(std::min(tile_rows, rows - first)),
                        dy.data_ptr<float>() + first * outputs, nullptr, 0,
                        parts.data() + stride * tile,
                        dx.defined() ? dx.data_ptr<float>() + first * width : nullptr,
                        scratch.data() + floats * thread);
      });
      k.sum_parts(parts.data(), tiles, stride, size, flat.data_ptr<float>());
    }

    std::vector<at::Tensor> gradients = {dx};
    int64_t offset = 0;
    for (const at::Tensor& p : parameters) {
      gradients.push_back(flat.narrow(0, offset, p.numel()).view(p.sizes()).clone());
      offset += p.numel();
    }
    gradients.emplace_back();  // ε
    return gradients;
  }
};

}  // namespace

void mlp_forward(Arguments& a) {
  const at::Tensor& given = a.t(0);
  const std::vector<at::Tensor> parameters = a.tensors(1, a.handle_count - 1);
  const double eps = a.real(0);
  if (given.dim() < 1) refuse("expected an input [..., D]");
  if (given.scalar_type() != at::kFloat) refuse("expected a float32 input");
  const at::Tensor x = given.reshape({-1, given.size(-1)}).contiguous();
  const MlpNet net = net_of(parameters, x.size(1), eps);
  std::vector<int64_t> shape(given.sizes().begin(), given.sizes().end() - 1);
  shape.push_back(net.widths[net.hidden + 1]);
  bool wanted = x.requires_grad();
  for (const at::Tensor& p : parameters) wanted = wanted || p.requires_grad();
  const at::Tensor y = wanted && c10::GradMode::is_enabled()
                           ? MlpFunction::apply(x, at::TensorList(parameters), eps)
                           : forward_rows(net, x);
  a.out.push_back(y.view(shape));
}

void mlp_regress(Arguments& a) {
  c10::NoGradGuard no_grad;
  const at::Tensor x = a.t(0).detach();
  const at::Tensor target = a.t(1).detach();
  const at::Tensor& order = a.t(2);
  if ((a.handle_count - 3) % 3 != 0)
    refuse("expected parameters, first and second moments in equal number");
  const int32_t count = (a.handle_count - 3) / 3;
  std::vector<at::Tensor> parameters = a.tensors(3, count);
  std::vector<at::Tensor> m = a.tensors(3 + count, count);
  std::vector<at::Tensor> v = a.tensors(3 + 2 * count, count);

  check_floats(x, "input");
  check_floats(target, "target");
  if (x.dim() != 2 || target.dim() != 1 || target.size(0) != x.size(0))
    refuse("expected input [B, D] and target [B]");
  if (order.scalar_type() != at::kLong || order.dim() != 1 || !order.is_contiguous()) {
    refuse("expected a contiguous int64 order [n], got " + describe(order));
  }
  const MlpNet net = net_of(parameters, x.size(1), a.real(0));
  if (net.widths[net.hidden + 1] != 1) refuse("regression needs a network with one output");
  for (int32_t i = 0; i < count; ++i) {
    check_floats(m[i], "first moment");
    check_floats(v[i], "second moment");
    if (m[i].sizes() != parameters[i].sizes() || v[i].sizes() != parameters[i].sizes()) {
      refuse("moments of parameter " + std::to_string(i) + " must have its shape");
    }
  }
  const int64_t batch = a.integer(1);
  const double max_norm = a.real(2);
  if (batch < 1) refuse("expected a batch size of at least 1");
  AdamOptions adam{a.real(3), a.real(4), a.real(5), a.real(6), a.real(7), a.integer(8)};
  const int64_t samples = order.size(0);
  const int64_t* rows = order.data_ptr<int64_t>();
  for (int64_t i = 0; i < samples; ++i) {
    if (rows[i] < 0 || rows[i] >= x.size(0)) {
      refuse("order holds " + std::to_string(rows[i]) + ", the input has " +
             std::to_string(x.size(0)) + " rows");
    }
  }

  const MlpKernels& k = kernels();
  const int32_t per_tile = tile_blocks(net);
  const int64_t tile_rows = static_cast<int64_t>(per_tile) * kBlock;
  const int32_t most_tiles =
      static_cast<int32_t>((std::min(batch, samples) + tile_rows - 1) / tile_rows);
  const size_t size = parameter_count(parameters), stride = round_up(size);
  const size_t floats = round_up(k.backward_floats(net, per_tile));
  Scratch parts(stride * std::max(most_tiles, 1)), scratch(floats * workers::threads()),
      gradient(stride);
  std::vector<double> losses(std::max(most_tiles, 1));

  double loss_sum = 0, last_loss = 0, norm_sum = 0;
  int64_t steps = 0, seen = 0;
  for (int64_t start = 0; start < samples; start += batch) {
    const int64_t here = std::min(batch, samples - start);
    const int32_t tiles = static_cast<int32_t>((here + tile_rows - 1) / tile_rows);
    workers::run(tiles, [&](int32_t tile, int32_t thread) {
      const int64_t first = tile * tile_rows;
      losses[tile] =
          k.backward_tile(net, x.data_ptr<float>(), rows + start + first,
                          static_cast<int32_t>(std::min(tile_rows, here - first)), nullptr,
                          target.data_ptr<float>(), 2.0f / static_cast<float>(here),
                          parts.data() + stride * tile, nullptr, scratch.data() + floats * thread);
    });
    k.sum_parts(parts.data(), tiles, stride, size, gradient.data());
    double squares = 0;
    size_t offset = 0;
    for (const at::Tensor& p : parameters) {
      squares += k.sum_of_squares(gradient.data() + offset, p.numel());
      offset += p.numel();
    }
    const double norm = std::sqrt(squares);
    // One bad sample must not reach the parameters: its mini-batch is left out, and the caller sees
    // fewer steps.
    if (!std::isfinite(norm)) continue;
    ++steps;
    seen += here;
    norm_sum += norm;
    last_loss = 0;
    for (int32_t tile = 0; tile < tiles; ++tile) last_loss += losses[tile];
    loss_sum += last_loss;
    last_loss /= static_cast<double>(here);
    if (max_norm > 0) {
      const double factor = clip_scale(norm, max_norm);
      if (factor < 1) k.scale(gradient.data(), size, static_cast<float>(factor));
    }
    const AdamCoefficients coefficients = adam_coefficients(adam);
    offset = 0;
    for (int32_t i = 0; i < count; ++i) {
      k.adam(parameters[i].data_ptr<float>(), gradient.data() + offset, m[i].data_ptr<float>(),
             v[i].data_ptr<float>(), parameters[i].numel(), coefficients);
      offset += parameters[i].numel();
    }
    ++adam.step;
  }
  // Autograd must know that the values it may have saved are gone.
  for (at::Tensor& p : parameters) p.unsafeGetTensorImpl()->bump_version();
  a.numbers[0] = seen > 0 ? loss_sum / static_cast<double>(seen) : 0;
  a.numbers[1] = last_loss;
  a.numbers[2] = steps > 0 ? norm_sum / static_cast<double>(steps) : 0;
  a.numbers[3] = static_cast<double>(steps);
}

}  // namespace sdpg
