// Writes compiled models as flat files (core/model/flat_model.h, render/flat_scene.h), for machines
// without protobuf:
//   flatten_models IN.model.binpb OUT ...      writes OUT.flat and OUT.scene
// gpu-sim/tools/gpu_check.sh reads those of gpu-sim/tests/data; the README there says how they are
// made.
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <sstream>

#include "core/kernels.h"
#include "core/model/flat_model.h"
#include "render/flat_scene.h"
#include "sdpg/model/v1/model.pb.h"

namespace {

void write(const std::string& path, const std::string& bytes) {
  std::ofstream out(path, std::ios::binary);
  out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  if (out.flush()) return;
  std::fprintf(stderr, "flatten_models: cannot write %s\n", path.c_str());
  std::exit(1);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3 || argc % 2 == 0) {
    std::fprintf(stderr, "flatten_models IN.model.binpb OUT ...\n");
    return 2;
  }
  for (int i = 1; i < argc; i += 2) {
    std::ifstream in(argv[i], std::ios::binary);
    std::stringstream bytes;
    bytes << in.rdbuf();
    sdpg::model::v1::Model message;
    std::string error;
    if (!in || !message.ParseFromString(bytes.str())) {
      std::fprintf(stderr, "flatten_models: %s is no sdpg.model.v1.Model\n", argv[i]);
      return 1;
    }
    const auto model = sdpg::core::make_model(message, &error);
    if (!model) {
      std::fprintf(stderr, "flatten_models: %s: %s\n", argv[i], error.c_str());
      return 1;
    }
    const auto scene = sdpg::render::make_scene(message, &error);
    if (!scene) {
      std::fprintf(stderr, "flatten_models: %s: %s\n", argv[i], error.c_str());
      return 1;
    }
    write(std::string(argv[i + 1]) + ".flat", save_flat_model(flatten_model(*model)));
    write(std::string(argv[i + 1]) + ".scene", save_flat_scene(*scene));
  }
  return 0;
}
