// Fused image encoders over tiles of pictures. Pictures are divided into a number of shares that
// follows from sizes alone; each share adds up its own gradient in the order of its pictures, and
// the shares are added in their order: threads decide only who computes a share.

#include "conv.h"

#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "conv_kernels.h"
#include "mlp_kernels.h"
#include "runtime.h"
#include "scratch.h"
#include "workers.h"

namespace sdpg {

namespace avx512 {
extern const ConvKernels conv_table;
}
namespace avx2 {
extern const ConvKernels conv_table;
}
namespace baseline {
extern const ConvKernels conv_table;
}

const ConvKernels& conv_kernels() {
  for (const ConvKernels* each : {&avx512::conv_table, &avx2::conv_table}) {
    if (std::strcmp(each->name, kernels().name) == 0) return *each;
  }
  return baseline::conv_table;
}

namespace {

// Reads the sizes off the parameters and checks each layer against the map before it.
ConvNet net_of(const at::Tensor& pictures, const at::Tensor& centre,
               const std::vector<at::Tensor>& parameters, const std::vector<int64_t>& strides) {
  if (pictures.dim() != 4 || pictures.scalar_type() != at::kByte || !pictures.device().is_cpu() ||
      !pictures.is_contiguous()) {
    refuse("pictures must be a contiguous uint8 tensor [B, C, H, W] in main memory, got " +
           describe(pictures));
  }
  if (centre.scalar_type() != at::kFloat || !centre.device().is_cpu() || !centre.is_contiguous() ||
      centre.sizes() != pictures.sizes().slice(1)) {
    refuse("the centre must be a contiguous float32 tensor of a picture's shape, got " +
           describe(centre) + " for " + describe(pictures));
  }
  ConvNet net;
  net.centre = centre.data_ptr<float>();
  net.layers = static_cast<int32_t>(strides.size()) + 1;
  if (net.layers < 2 || net.layers > kMaxConvLayers) {
    refuse("expected 1 to " + std::to_string(kMaxConvLayers - 1) + " convolutions, got " +
           std::to_string(strides.size()));
  }
  if (parameters.size() != 2 * static_cast<size_t>(net.layers)) {
    refuse("expected a weight and a bias for each of " + std::to_string(net.layers) +
           " layers, got " + std::to_string(parameters.size()) + " parameters");
  }
  int64_t channels = pictures.size(1), rows = pictures.size(2), columns = pictures.size(3);
  for (int32_t l = 0; l < net.layers; ++l) {
    const bool projection = l + 1 == net.layers;
    const std::string name = projection ? "the projection" : "convolution " + std::to_string(l);
    const at::Tensor &weight = parameters[2 * l], &bias = parameters[2 * l + 1];
    for (const at::Tensor* t : {&weight, &bias}) {
      if (t->scalar_type() != at::kFloat || !t->device().is_cpu() || !t->is_contiguous()) {
        refuse("parameters of " + name + " must be contiguous float32 tensors, got " +
               describe(*t));
      }
    }
    const bool fits = projection ? weight.dim() == 2 && weight.size(1) == channels * rows * columns
                                 : weight.dim() == 4 && weight.size(1) == channels &&
                                       weight.size(2) <= rows && weight.size(3) <= columns &&
                                       weight.size(2) > 0 && weight.size(3) > 0;
    if (!fits || weight.size(0) < 1 || bias.dim() != 1 || bias.size(0) != weight.size(0)) {
      refuse(name + " does not fit a map of " + std::to_string(channels) + " × " +
             std::to_string(rows) + " × " + std::to_string(columns) + ": got weight " +
             describe(weight) + ", bias " + describe(bias));
    }
    const int64_t stride = projection ? 1 : strides[l];
    if (stride < 1) refuse("expected strides of at least 1, got " + std::to_string(stride));
    ConvLayer& layer = net.layer[l];
    const auto narrow = [](int64_t n) { return static_cast<int32_t>(n); };
    layer.inputs = narrow(channels);
    layer.in_rows = narrow(rows);
    layer.in_columns = narrow(columns);
    layer.outputs = narrow(weight.size(0));
    layer.window_rows = narrow(projection ? rows : weight.size(2));
    layer.window_columns = narrow(projection ? columns : weight.size(3));
    layer.stride = narrow(stride);
    layer.rows = (layer.in_rows - layer.window_rows) / layer.stride + 1;
    layer.columns = (layer.in_columns - layer.window_columns) / layer.stride + 1;
    layer.relu = !projection;
    layer.weight = weight.data_ptr<float>();
    layer.bias = bias.data_ptr<float>();
    channels = layer.outputs;
    rows = layer.rows;
    columns = layer.columns;
  }
  return net;
}

int64_t picture_bytes(const ConvNet& net) {
  const ConvLayer& first = net.layer[0];
  return static_cast<int64_t>(first.inputs) * first.in_rows * first.in_columns;
}

int32_t tiles_of(int64_t pictures) {
  return static_cast<int32_t>((pictures + kTilePictures - 1) / kTilePictures);
}

// Maps that a backward pass will need are kept up to this many bytes; beyond, it computes them
// again.
constexpr size_t kMostKeptBytes = 64 << 20;

// y [B, D]; fills maps [tiles, map_floats] if it is defined.
at::Tensor encode(const ConvNet& net, const at::Tensor& pictures, const at::Tensor& maps = {}) {
  const int64_t count = pictures.size(0);
  const int32_t outputs = net.layer[net.layers - 1].outputs;
  at::Tensor y = at::empty({count, outputs}, at::TensorOptions().dtype(at::kFloat));
  const ConvKernels& k = conv_kernels();
  Scratch packed(k.packed_floats(net));
  k.pack(net, packed.data());
  const int32_t tiles = tiles_of(count);
  const size_t floats = round_up(k.forward_floats(net));
  Scratch scratch(floats * (tiles > 1 ? workers::threads() : 1));
  const uint8_t* in = pictures.data_ptr<uint8_t>();
  float* out = y.data_ptr<float>();
  workers::run(tiles, [&](int32_t tile, int32_t thread) {
    const int64_t first = static_cast<int64_t>(tile) * kTilePictures;
    k.forward_tile(net, packed.data(), in + first * picture_bytes(net),
                   static_cast<int32_t>(std::min<int64_t>(kTilePictures, count - first)),
                   out + first * outputs,
                   maps.defined() ? maps.data_ptr<float>() + tile * maps.size(1) : nullptr,
                   scratch.data() + floats * thread);
  });
  return y;
}

class EncodeFunction : public torch::autograd::Function<EncodeFunction> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& pictures,
                            const at::Tensor& centre, at::TensorList list,
                            std::vector<int64_t> strides) {
    const std::vector<at::Tensor> parameters = list.vec();
    const ConvNet net = net_of(pictures, centre, parameters, strides);
    const int64_t tiles = tiles_of(pictures.size(0));
    const size_t floats = conv_kernels().map_floats(net);
    at::Tensor maps;
    if (tiles * floats * sizeof(float) <= kMostKeptBytes) {
      maps =
          at::empty({tiles, static_cast<int64_t>(floats)}, at::TensorOptions().dtype(at::kFloat));
    }
    std::vector<at::Tensor> saved = parameters;
    saved.push_back(pictures);
    saved.push_back(centre);
    saved.push_back(maps);
    context->save_for_backward(saved);
    context->saved_data["strides"] = strides;
    return encode(net, pictures, maps);
  }

  static std::vector<at::Tensor> backward(torch::autograd::AutogradContext* context,
                                          std::vector<at::Tensor> output) {
    std::vector<at::Tensor> parameters = context->get_saved_variables();
    const at::Tensor maps = parameters.back();
    parameters.pop_back();
    const at::Tensor centre = parameters.back();
    parameters.pop_back();
    const at::Tensor pictures = parameters.back();
    parameters.pop_back();
    const ConvNet net =
        net_of(pictures, centre, parameters, context->saved_data["strides"].toIntVector());
    const at::Tensor dy = output[0].contiguous();
    const int64_t count = pictures.size(0);
    const int32_t outputs = net.layer[net.layers - 1].outputs;

    const ConvKernels& k = conv_kernels();
    Scratch packed(k.packed_floats(net));
    k.pack(net, packed.data());
    const int32_t tiles = tiles_of(count);
    const size_t size = k.gradient_floats(net), stride = round_up(size);
    // A share holds a whole gradient: few of them where that is large.
    const int32_t shares = std::min(tiles, size > (1 << 20) ? 4 : 8);
    const size_t floats = round_up(k.backward_floats(net));
    Scratch gradients(stride * std::max(shares, 1)),
        scratch(floats * (shares > 1 ? workers::threads() : 1));
    std::memset(gradients.data(), 0, stride * std::max(shares, 1) * sizeof(float));
    workers::run(shares, [&](int32_t share, int32_t thread) {
      const int32_t end = static_cast<int32_t>((share + 1) * static_cast<int64_t>(tiles) / shares);
      for (int32_t tile = static_cast<int32_t>(share * static_cast<int64_t>(tiles) / shares);
           tile < end; ++tile) {
        const int64_t first = static_cast<int64_t>(tile) * kTilePictures;
        k.backward_tile(net, packed.data(),
                        pictures.data_ptr<uint8_t>() + first * picture_bytes(net),
                        static_cast<int32_t>(std::min<int64_t>(kTilePictures, count - first)),
                        dy.data_ptr<float>() + first * outputs,
                        maps.defined() ? maps.data_ptr<float>() + tile * maps.size(1) : nullptr,
                        gradients.data() + stride * share, scratch.data() + floats * thread);
      }
    });
    if (shares > 1) kernels().sum_parts(gradients.data(), shares, stride, size, gradients.data());

    std::vector<at::Tensor> result = {at::Tensor(), at::Tensor()};  // pictures, centre
    for (int32_t l = 0; l < net.layers; ++l) {
      at::Tensor weight = at::empty_like(parameters[2 * l]);
      at::Tensor bias = at::empty_like(parameters[2 * l + 1]);
      k.unpack(net, gradients.data(), l, weight.data_ptr<float>(), bias.data_ptr<float>());
      result.push_back(weight);
      result.push_back(bias);
    }
    result.emplace_back();  // strides
    return result;
  }
};

}  // namespace

void conv_encode(Arguments& a) {
  if (a.handle_count < 2) refuse("expected pictures, their centre and parameters");
  const at::Tensor &pictures = a.t(0), &centre = a.t(1);
  const std::vector<at::Tensor> parameters = a.tensors(2, a.handle_count - 2);
  std::vector<int64_t> strides;
  for (size_t l = 0; 2 * l + 2 < parameters.size(); ++l)
    strides.push_back(a.integer(static_cast<int32_t>(l)));
  const ConvNet net = net_of(pictures, centre, parameters, strides);
  bool wanted = false;
  for (const at::Tensor& p : parameters) wanted = wanted || p.requires_grad();
  a.out.push_back(wanted && c10::GradMode::is_enabled()
                      ? EncodeFunction::apply(pictures, centre, at::TensorList(parameters), strides)
                      : encode(net, pictures));
}

}  // namespace sdpg
