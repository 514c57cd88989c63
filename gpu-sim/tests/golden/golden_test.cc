// The C++ half of the golden bytes of proto/golden (test/contract/golden.test.ts is the other):
// every line is "type <tab> hex <tab> JSON". What TypeScript wrote must be read, and written again
// from the message and from the JSON, byte for byte.

#include <google/protobuf/descriptor.h>
#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>
#include <google/protobuf/message.h>
#include <google/protobuf/util/json_util.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "sdpg/evaluation/v1/evaluation.pb.h"
#include "sdpg/learner/v1/learner.pb.h"
#include "sdpg/model/v1/model.pb.h"
#include "sdpg/render/v1/render.pb.h"
#include "sdpg/sim/v1/sim.pb.h"
#include "sdpg/task/v1/task.pb.h"
#include "sdpg/tensor/v1/tensor.pb.h"
#include "sdpg/view/v1/view.pb.h"

namespace {

using google::protobuf::Descriptor;
using google::protobuf::Message;

struct Golden {
  std::string where;  // file:line
  std::string type;
  std::string bytes;
  std::string json;
};

std::string from_hex(const std::string& hex) {
  std::string bytes;
  for (std::size_t i = 0; i + 1 < hex.size(); i += 2)
    bytes.push_back(static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16)));
  return bytes;
}

std::string to_hex(const std::string& bytes) {
  const char digits[] = "0123456789abcdef";
  std::string hex;
  for (const unsigned char byte : bytes) {
    hex.push_back(digits[byte >> 4]);
    hex.push_back(digits[byte & 15]);
  }
  return hex;
}

const std::vector<Golden>& goldens() {
  static const std::vector<Golden> all = [] {
    std::vector<Golden> lines;
    for (const auto& entry : std::filesystem::directory_iterator(SDPG_REPOSITORY "/proto/golden")) {
      if (entry.path().extension() != ".tsv") continue;
      std::ifstream file(entry.path());
      int number = 0;
      for (std::string line; std::getline(file, line);) {
        const auto where = entry.path().filename().string() + ":" + std::to_string(++number);
        const auto first = line.find('\t');
        const auto second = line.find('\t', first + 1);
        if (second == std::string::npos) {
          ADD_FAILURE() << where << ": expected three columns";
          continue;
        }
        lines.push_back({where, line.substr(0, first),
                         from_hex(line.substr(first + 1, second - first - 1)),
                         line.substr(second + 1)});
      }
    }
    return lines;
  }();
  return all;
}

// An empty message of a type by name, or null when C++ does not know it.
std::unique_ptr<Message> make(const std::string& type) {
  const Descriptor* descriptor =
      google::protobuf::DescriptorPool::generated_pool()->FindMessageTypeByName(type);
  if (descriptor == nullptr) return nullptr;
  return std::unique_ptr<Message>(
      google::protobuf::MessageFactory::generated_factory()->GetPrototype(descriptor)->New());
}

// Map entries in the order of their keys, as TypeScript wrote them.
std::string serialise(const Message& message) {
  std::string bytes;
  {
    google::protobuf::io::StringOutputStream stream(&bytes);
    google::protobuf::io::CodedOutputStream coded(&stream);
    coded.SetSerializationDeterministic(true);
    message.SerializeToCodedStream(&coded);
  }
  return bytes;
}

TEST(Golden, EveryMessageOfEveryPackageHasALine) {
  std::set<std::string> recorded;
  for (const Golden& golden : goldens()) recorded.insert(golden.type);
  const google::protobuf::FileDescriptor* files[] = {
      sdpg::tensor::v1::Tensor::descriptor()->file(),
      sdpg::model::v1::Model::descriptor()->file(),
      sdpg::task::v1::TaskProgram::descriptor()->file(),
      sdpg::view::v1::View::descriptor()->file(),
      sdpg::sim::v1::Step::descriptor()->file(),
      sdpg::render::v1::Draw::descriptor()->file(),
      sdpg::learner::v1::Epoch::descriptor()->file(),
      sdpg::evaluation::v1::Result::descriptor()->file(),
  };
  int messages = 0;
  for (const auto* file : files) {
    for (int i = 0; i < file->message_type_count(); ++i) {
      ++messages;
      EXPECT_TRUE(recorded.count(file->message_type(i)->full_name()))
          << file->message_type(i)->full_name() << " has no line in proto/golden";
    }
  }
  EXPECT_GT(messages, 60);
}

TEST(Golden, BytesAreReadAndWrittenByteForByte) {
  for (const Golden& golden : goldens()) {
    SCOPED_TRACE(golden.where + " " + golden.type);
    const auto message = make(golden.type);
    ASSERT_NE(message, nullptr);
    ASSERT_TRUE(message->ParseFromString(golden.bytes));
    EXPECT_TRUE(message->GetReflection()->GetUnknownFields(*message).empty());
    EXPECT_EQ(to_hex(serialise(*message)), to_hex(golden.bytes));
  }
}

TEST(Golden, ValuesFromJsonGiveTheSameBytes) {
  for (const Golden& golden : goldens()) {
    SCOPED_TRACE(golden.where + " " + golden.type);
    const auto message = make(golden.type);
    ASSERT_NE(message, nullptr);
    const auto status = google::protobuf::util::JsonStringToMessage(golden.json, message.get());
    ASSERT_TRUE(status.ok()) << status.ToString();
    EXPECT_EQ(to_hex(serialise(*message)), to_hex(golden.bytes));
  }
}

}  // namespace
