// The gRPC server over a loopback connection: protocol of the rollout stream, transports,
// snapshots, what malformed and misplaced messages get, and that nothing of it harms the server.

#include "server/server.h"

#include <fcntl.h>
#include <google/protobuf/stubs/logging.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <random>
#include <thread>

#include "support/fixtures.h"

namespace sdpg::server {
namespace {

namespace v1 = sdpg::sim::v1;
using ::sdpg::testing::hopper_request;
using ::sdpg::testing::test_seed;

constexpr std::size_t kNominals = 4, kActions = 3;

class ServerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    google::protobuf::SetLogHandler(nullptr);
    setenv("SDPG_LOG", "warn", 1);
    start({2, "", std::uint64_t{1} << 30, true});
  }
  void start(const ServiceOptions& options) {
    std::string error;
    server_ = Server::start("127.0.0.1:0", options, &error);
    ASSERT_TRUE(server_) << error;
    channel_ = grpc::CreateChannel(server_->address(), grpc::InsecureChannelCredentials());
    stub_ = v1::SimulationService::NewStub(channel_);
  }

  v1::CreateBatchResponse create(v1::Transport transport, std::uint32_t horizon = 8) {
    auto request = hopper_request(kNominals, 3, horizon);
    request.set_transport(transport);
    grpc::ClientContext context;
    v1::CreateBatchResponse response;
    const grpc::Status status = stub_->CreateBatch(&context, request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response;
  }
  grpc::Status destroy(const std::string& id) {
    grpc::ClientContext context;
    v1::DestroyBatchRequest request;
    request.set_batch_id(id);
    v1::DestroyBatchResponse response;
    return stub_->DestroyBatch(&context, request, &response);
  }
  std::string snapshot(const std::string& id, grpc::Status* status) {
    grpc::ClientContext context;
    v1::SnapshotBatchRequest request;
    request.set_batch_id(id);
    const auto reader = stub_->SnapshotBatch(&context, request);
    std::string bytes;
    v1::SnapshotBatchResponse response;
    while (reader->Read(&response)) {
      EXPECT_LE(response.data().size(), 1u << 20);
      bytes += response.data();
    }
    *status = reader->Finish();
    return bytes;
  }
  grpc::Status restore(const std::string& id, const std::string& bytes) {
    grpc::ClientContext context;
    v1::RestoreBatchResponse response;
    const auto writer = stub_->RestoreBatch(&context, &response);
    v1::RestoreBatchRequest request;
    request.set_batch_id(id);
    for (std::size_t at = 0; at < bytes.size(); at += 100000) {
      request.set_data(bytes.substr(at, 100000));
      if (!writer->Write(request)) break;
      request.clear_batch_id();
    }
    writer->WritesDone();
    return writer->Finish();
  }

  std::unique_ptr<Server> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::SimulationService::Stub> stub_;
};

std::string floats(std::size_t count, float value) {
  std::string bytes(count * 4, 0);
  for (std::size_t i = 0; i < count; ++i) memcpy(&bytes[i * 4], &value, 4);
  return bytes;
}

// One Rollout stream as a caller drives it.
struct Stream {
  Stream(v1::SimulationService::Stub& stub, const std::string& id)
      : stream(stub.Rollout(&context)), batch_id(id) {}
  bool send(v1::RolloutRequest request) {
    request.set_batch_id(batch_id);
    request.set_sequence(sequence++);
    return stream->Write(request);
  }
  bool begin(std::uint64_t epoch, bool reset = false) {
    v1::RolloutRequest request;
    request.mutable_begin()->set_epoch(epoch);
    request.mutable_begin()->set_reset(reset);
    return send(request);
  }
  bool step(std::uint32_t t, float mean = 0.1f, std::size_t count = kNominals * kActions) {
    v1::RolloutRequest request;
    request.mutable_step()->set_t(t);
    request.mutable_step()->set_mean(floats(count, mean));
    request.mutable_step()->set_log_std(floats(kActions, -1));
    return send(request);
  }
  bool end() {
    v1::RolloutRequest request;
    request.mutable_end();
    return send(request);
  }
  bool credit(std::uint32_t chunks) {
    v1::RolloutRequest request;
    request.mutable_credit()->set_chunks(chunks);
    return send(request);
  }
  v1::RolloutResponse read() {
    v1::RolloutResponse response;
    EXPECT_TRUE(stream->Read(&response));
    EXPECT_EQ(response.sequence(), answers++);
    EXPECT_EQ(response.batch_id(), batch_id);
    return response;
  }
  grpc::Status finish() {
    stream->WritesDone();
    v1::RolloutResponse response;
    while (stream->Read(&response)) {
    }
    return stream->Finish();
  }

  grpc::ClientContext context;
  std::unique_ptr<grpc::ClientReaderWriter<v1::RolloutRequest, v1::RolloutResponse>> stream;
  std::string batch_id;
  std::uint64_t sequence = 0, answers = 0;
};

// A shared memory object as a caller maps it.
struct Mapping {
  explicit Mapping(const v1::CreateBatchResponse& batch) {
    const auto& shared = batch.tensors(0).tensor().shared_memory();
    bytes = shared.object_bytes();
    const int file = shm_open(shared.name().c_str(), O_RDWR, 0);
    EXPECT_GE(file, 0);
    data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    EXPECT_NE(data, MAP_FAILED);
  }
  ~Mapping() { munmap(data, bytes); }
  void* data;
  std::size_t bytes;
};

bool object_exists(const std::string& name) {
  const int file = shm_open(name.c_str(), O_RDONLY, 0);
  if (file >= 0) close(file);
  return file >= 0;
}

// A segment over shared memory; returns the buffer.
std::string shared_segment(v1::SimulationService::Stub& stub, const v1::CreateBatchResponse& batch,
                           std::uint32_t steps) {
  Mapping mapping(batch);
  Stream stream(stub, batch.batch_id());
  EXPECT_TRUE(stream.begin(3));
  EXPECT_TRUE(stream.read().has_begun());
  for (std::uint32_t t = 0; t < steps; ++t) {
    EXPECT_TRUE(stream.step(t));
    const auto answer = stream.read();
    EXPECT_EQ(answer.stepped().t(), t);
    EXPECT_TRUE(answer.stepped().actor().empty());
    EXPECT_EQ(answer.stepped().timings_size(), 4);
    for (const auto& timing : answer.stepped().timings())
      EXPECT_LE(timing.start_unix_nano(), timing.end_unix_nano());
  }
  EXPECT_TRUE(stream.end());
  const auto ended = stream.read().ended();
  EXPECT_EQ(ended.steps(), steps);
  EXPECT_EQ(ended.chunks(), 0u);
  EXPECT_TRUE(stream.finish().ok());
  return {static_cast<const char*>(mapping.data), batch.buffer_bytes()};
}

TEST_F(ServerTest, TransportsCarryTheSameBits) {
  const auto shared = create(v1::TRANSPORT_SHARED_MEMORY);
  const auto inlined = create(v1::TRANSPORT_INLINE);
  EXPECT_EQ(shared.transport(), v1::TRANSPORT_SHARED_MEMORY);
  EXPECT_EQ(inlined.transport(), v1::TRANSPORT_INLINE);
  ASSERT_EQ(shared.buffer_bytes(), inlined.buffer_bytes());
  const std::string expected = shared_segment(*stub_, shared, 8);

  std::string assembled(inlined.buffer_bytes(), 0);
  Stream stream(*stub_, inlined.batch_id());
  ASSERT_TRUE(stream.begin(3));
  const auto actor_of = [&](std::uint32_t slot) {
    const auto& actor = shared.tensors(2);
    const std::size_t bytes = kNominals * static_cast<std::size_t>(actor.tensor().shape(2)) * 4;
    return expected.substr(actor.offset_bytes() + slot * bytes, bytes);
  };
  EXPECT_EQ(stream.read().begun().actor(), actor_of(0));
  for (std::uint32_t t = 0; t < 8; ++t) {
    ASSERT_TRUE(stream.step(t));
    EXPECT_EQ(stream.read().stepped().actor(), actor_of(t + 1));
  }
  ASSERT_TRUE(stream.end());
  std::uint32_t chunks = 0;
  while (true) {
    ASSERT_TRUE(stream.credit(1));
    const auto answer = stream.read();
    if (answer.has_ended()) {
      EXPECT_EQ(answer.ended().chunks(), chunks);
      break;
    }
    const auto& chunk = answer.chunk();
    ASSERT_LE(chunk.data().size(), 1u << 20);
    ASSERT_LE(chunk.offset_bytes() + chunk.data().size(), assembled.size());
    memcpy(&assembled[chunk.offset_bytes()], chunk.data().data(), chunk.data().size());
    chunks += 1;
  }
  EXPECT_GT(chunks, 0u);
  EXPECT_TRUE(stream.finish().ok());
  for (const auto& tensor : inlined.tensors()) EXPECT_FALSE(tensor.tensor().has_shared_memory());
  EXPECT_TRUE(assembled == expected);
}

TEST_F(ServerTest, SendsNoChunkWithoutCredit) {
  const auto batch = create(v1::TRANSPORT_INLINE);
  Stream stream(*stub_, batch.batch_id());
  stream.begin(0);
  stream.read();
  stream.end();
  // Nothing may arrive: the next message must be the one that answers the credit.
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  stream.credit(1000);
  EXPECT_TRUE(stream.read().has_chunk());
  EXPECT_TRUE(stream.finish().ok());
}

TEST_F(ServerTest, UnlinksSharedMemoryAtTheFirstBegin) {
  const auto batch = create(v1::TRANSPORT_SHARED_MEMORY);
  const std::string name = batch.tensors(0).tensor().shared_memory().name();
  EXPECT_TRUE(object_exists(name));
  EXPECT_EQ(name.rfind("/sdpg-" + std::to_string(getuid()) + "-" + std::to_string(getpid()), 0),
            0u);
  shared_segment(*stub_, batch, 2);
  EXPECT_FALSE(object_exists(name));
  const auto second = create(v1::TRANSPORT_SHARED_MEMORY);
  const std::string other = second.tensors(0).tensor().shared_memory().name();
  EXPECT_TRUE(destroy(second.batch_id()).ok());
  EXPECT_FALSE(object_exists(other));
  const auto third = create(v1::TRANSPORT_SHARED_MEMORY);
  server_->stop(100);
  EXPECT_FALSE(object_exists(third.tensors(0).tensor().shared_memory().name()));
}

TEST_F(ServerTest, RefusesSharedMemoryWhereItIsNotOffered) {
  start({1, "", std::uint64_t{1} << 30, false});
  auto request = hopper_request(1, 0, 1);
  request.set_transport(v1::TRANSPORT_SHARED_MEMORY);
  grpc::ClientContext context;
  v1::CreateBatchResponse response;
  const auto status = stub_->CreateBatch(&context, request, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(create(v1::TRANSPORT_UNSPECIFIED).transport(), v1::TRANSPORT_INLINE);
}

TEST_F(ServerTest, RefusesWhatBreaksTheProtocolAndKeepsTheBatch) {
  const auto batch = create(v1::TRANSPORT_SHARED_MEMORY);
  const std::string id = batch.batch_id();
  const struct {
    const char* says;
    grpc::StatusCode code;
    std::function<void(Stream&)> drive;
  } cases[] = {
      {"step: no segment is open; send Begin first", grpc::StatusCode::FAILED_PRECONDITION,
       [](Stream& s) { s.step(0); }},
      {"end: no segment is open; send Begin first", grpc::StatusCode::FAILED_PRECONDITION,
       [](Stream& s) { s.end(); }},
      {"step: t: expected 0, got 1", grpc::StatusCode::INVALID_ARGUMENT,
       [](Stream& s) {
         s.begin(0);
         s.step(1);
       }},
      {"step: mean: expected [4, 3] = 12 values, got 5", grpc::StatusCode::INVALID_ARGUMENT,
       [](Stream& s) {
         s.begin(0);
         s.step(0, 0, 5);
       }},
      {"sequence: expected 1, got 5", grpc::StatusCode::INVALID_ARGUMENT,
       [](Stream& s) {
         s.begin(0);
         s.sequence = 5;
         s.step(0);
       }},
      {"batch_id: this stream is for '%', got 'batch-9'", grpc::StatusCode::INVALID_ARGUMENT,
       [](Stream& s) {
         s.begin(0);
         s.batch_id = "batch-9";
         s.step(0);
       }},
      {"message 0: expected begin, step, end or credit, got none of them",
       grpc::StatusCode::INVALID_ARGUMENT, [](Stream& s) { s.send({}); }},
  };
  for (const auto& c : cases) {
    Stream stream(*stub_, id);
    c.drive(stream);
    const grpc::Status status = stream.finish();
    std::string says = c.says;
    if (const auto at = says.find('%'); at != std::string::npos) says.replace(at, 1, id);
    EXPECT_EQ(status.error_message(), says);
    EXPECT_EQ(status.error_code(), c.code) << says;
  }
  shared_segment(*stub_, create(v1::TRANSPORT_SHARED_MEMORY), 1);
  Stream good(*stub_, id);
  EXPECT_TRUE(good.begin(1));
  EXPECT_TRUE(good.read().has_begun());
  EXPECT_TRUE(good.finish().ok());
}

TEST_F(ServerTest, FaultsTheGroupsOfMeansThatAreNotFiniteAndGoesOn) {
  const auto batch = create(v1::TRANSPORT_INLINE);
  Stream stream(*stub_, batch.batch_id());
  ASSERT_TRUE(stream.begin(0));
  EXPECT_TRUE(stream.read().has_begun());
  ASSERT_TRUE(stream.step(0, NAN));
  EXPECT_EQ(stream.read().stepped().faults(), kNominals * 4);
  ASSERT_TRUE(stream.step(1));
  EXPECT_EQ(stream.read().stepped().faults(), 0u);
  EXPECT_TRUE(stream.finish().ok());
  grpc::ClientContext context;
  v1::DescribeBatchRequest request;
  request.set_batch_id(batch.batch_id());
  v1::DescribeBatchResponse described;
  ASSERT_TRUE(stub_->DescribeBatch(&context, request, &described).ok());
  EXPECT_EQ(described.faults().at(v1::FAULT_BIT_NON_FINITE), kNominals * 4);
}

TEST_F(ServerTest, RefusesAModelByItsElementAndGoesOnServing) {
  using Model = sdpg::model::v1::Model;
  const struct {
    const char* says;  // where the line begins
    std::function<void(Model*)> edit;
  } cases[] = {
      {"model: unsupported: option solver 1", [](Model* m) { m->mutable_option()->set_solver(1); }},
      {"model: unsupported: option density 1.2",
       [](Model* m) { m->mutable_option()->set_density(1.2); }},
      {"model: body 'thigh': moves but has no mass",
       [](Model* m) {
         m->mutable_bodies()->set_mass(2, 0);
         for (int k = 6; k < 9; ++k) m->mutable_bodies()->set_inertia(k, 0);
       }},
      {"model: body 'thigh': expected mass at least 0",
       [](Model* m) { m->mutable_bodies()->set_mass(2, -1); }},
      {"model: geoms.size[3]: expected a finite number",
       [](Model* m) { m->mutable_geoms()->set_size(3, NAN); }},
      {"model: bodies.pos[5]: expected a finite number",
       [](Model* m) { m->mutable_bodies()->set_pos(5, INFINITY); }},
      {"model: at most 256 bodies are supported",
       [](Model* m) {
         while (m->bodies().name_size() <= 256) m->mutable_bodies()->add_name("more");
       }},
      {"model: at most 512 geoms are supported",
       [](Model* m) {
         while (m->geoms().name_size() <= 512) m->mutable_geoms()->add_name("more");
       }},
      {"model: option timestep", [](Model* m) { m->mutable_option()->set_timestep(NAN); }},
  };
  for (const auto& c : cases) {
    auto request = hopper_request(kNominals, 3, 8);
    c.edit(request.mutable_model());
    grpc::ClientContext context;
    v1::CreateBatchResponse response;
    const grpc::Status status = stub_->CreateBatch(&context, request, &response);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT) << c.says;
    EXPECT_EQ(status.error_message().rfind(c.says, 0), 0u)
        << "expected " << c.says << ", got " << status.error_message();
    EXPECT_EQ(status.error_message().find('\n'), std::string::npos);
  }
  shared_segment(*stub_, create(v1::TRANSPORT_SHARED_MEMORY), 1);
}

TEST_F(ServerTest, AllowsOneStreamABatch) {
  const auto batch = create(v1::TRANSPORT_SHARED_MEMORY);
  Stream first(*stub_, batch.batch_id());
  first.begin(0);
  first.read();
  Stream second(*stub_, batch.batch_id());
  second.begin(0);
  const auto status = second.finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  // The first one goes on, and a cancelled segment leaves the batch usable.
  first.step(0);
  EXPECT_TRUE(first.read().has_stepped());
  first.context.TryCancel();
  first.finish();
  for (int attempt = 0; attempt < 100; ++attempt) {
    Stream third(*stub_, batch.batch_id());
    third.begin(0);
    v1::RolloutResponse response;
    const bool begun = third.stream->Read(&response);
    third.finish();
    if (begun) return;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  FAIL() << "the cancelled stream still holds the batch after 2 s";
}

TEST_F(ServerTest, TellsAStreamThatItsBatchIsGone) {
  const auto batch = create(v1::TRANSPORT_SHARED_MEMORY);
  Stream stream(*stub_, batch.batch_id());
  stream.begin(0);
  stream.read();
  EXPECT_TRUE(destroy(batch.batch_id()).ok());
  EXPECT_EQ(destroy(batch.batch_id()).error_code(), grpc::StatusCode::NOT_FOUND);
  stream.step(0);
  EXPECT_EQ(stream.finish().error_code(), grpc::StatusCode::NOT_FOUND);
}

// The doorbell of batch/doorbell.h, as a caller finds it behind the buffer.
batch::Doorbell* doorbell_of(const Mapping& mapping, const v1::CreateBatchResponse& batch) {
  return reinterpret_cast<batch::Doorbell*>(static_cast<char*>(mapping.data) +
                                            batch.buffer_bytes());
}

TEST_F(ServerTest, StepsByDoorbellWithTheBitsOfTheStream) {
  const auto by_stream = create(v1::TRANSPORT_SHARED_MEMORY);
  const auto by_bell = create(v1::TRANSPORT_SHARED_MEMORY);
  const std::string expected = shared_segment(*stub_, by_stream, 8);
  Mapping mapping(by_bell);
  batch::Doorbell* bell = doorbell_of(mapping, by_bell);
  Stream stream(*stub_, by_bell.batch_id());
  bell->armed = 1;
  stream.begin(3);
  EXPECT_TRUE(stream.read().has_begun());
  const std::size_t values = kNominals * kActions;
  for (std::uint32_t t = 0; t < 8; ++t) {
    std::fill_n(bell->values, values, 0.1f);
    std::fill_n(bell->values + values, kActions, -1.0f);
    bell->log_std_count = kActions;
    bell->command = batch::Doorbell::kStep;
    bell->t = t;
    ASSERT_TRUE(bell->ring(10'000));
    ASSERT_EQ(bell->status, 0u) << bell->error;
  }
  bell->command = batch::Doorbell::kEnd;
  ASSERT_TRUE(bell->ring(10'000));
  EXPECT_EQ(std::string(static_cast<const char*>(mapping.data), by_bell.buffer_bytes()), expected);
  EXPECT_TRUE(stream.finish().ok());
}

TEST_F(ServerTest, EndsAListenerAtTheDoorbellWhoseBatchIsGone) {
  const auto batch = create(v1::TRANSPORT_SHARED_MEMORY);
  Mapping mapping(batch);
  doorbell_of(mapping, batch)->armed = 1;
  Stream stream(*stub_, batch.batch_id());
  stream.begin(0);
  EXPECT_TRUE(stream.read().has_begun());
  EXPECT_TRUE(destroy(batch.batch_id()).ok());
  EXPECT_EQ(stream.finish().error_code(), grpc::StatusCode::NOT_FOUND);
}

TEST_F(ServerTest, GivesBackTheMemoryOfBatchesThatStreamsStillHeld) {
  start({1, "", 1 << 20, true});  // room for about eight
  for (int round = 0; round < 30; ++round) {
    v1::CreateBatchResponse batch;
    grpc::Status status;
    for (int attempt = 0; attempt < 200; ++attempt) {  // a listener notices within 100 ms
      grpc::ClientContext context;
      status = stub_->CreateBatch(&context, hopper_request(kNominals, 3, 8), &batch);
      if (status.ok()) break;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    ASSERT_TRUE(status.ok()) << "round " << round << ": " << status.error_message();
    Mapping mapping(batch);
    doorbell_of(mapping, batch)->armed = 1;
    Stream stream(*stub_, batch.batch_id());
    stream.begin(0);
    stream.read();
    EXPECT_TRUE(destroy(batch.batch_id()).ok());
    stream.context.TryCancel();
    stream.finish();
  }
}

TEST_F(ServerTest, AnswersABadCommandAtTheDoorbell) {
  const auto batch = create(v1::TRANSPORT_SHARED_MEMORY);
  Mapping mapping(batch);
  batch::Doorbell* bell = doorbell_of(mapping, batch);
  bell->armed = 1;
  Stream stream(*stub_, batch.batch_id());
  stream.begin(0);
  stream.read();
  bell->command = 7;
  ASSERT_TRUE(bell->ring(10'000));
  EXPECT_EQ(bell->status, static_cast<std::uint32_t>(grpc::StatusCode::INVALID_ARGUMENT));
  EXPECT_EQ(std::string(bell->error), "doorbell: expected command 1 or 2, got 7");
  EXPECT_EQ(stream.finish().error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(ServerTest, SnapshotsAndRestores) {
  const auto batch = create(v1::TRANSPORT_SHARED_MEMORY),
             twin = create(v1::TRANSPORT_SHARED_MEMORY);
  grpc::Status status;
  const std::string saved = snapshot(batch.batch_id(), &status);
  EXPECT_TRUE(status.ok());
  {
    Mapping mapping(twin);
    Stream stream(*stub_, twin.batch_id());
    stream.begin(9);
    stream.read();
    snapshot(twin.batch_id(), &status);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
    for (std::uint32_t t = 0; t < 8; ++t) {
      stream.step(t, 0.5f);
      stream.read();
    }
    stream.end();
    stream.read();
    EXPECT_TRUE(stream.finish().ok());
  }
  EXPECT_NE(snapshot(twin.batch_id(), &status), saved);
  EXPECT_TRUE(restore(twin.batch_id(), saved).ok());
  EXPECT_EQ(snapshot(twin.batch_id(), &status), saved);
  EXPECT_EQ(restore(twin.batch_id(), saved.substr(1)).error_code(),
            grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(restore(twin.batch_id(), saved + "x").error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(restore("batch-99", saved).error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(restore(twin.batch_id(), "").error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(ServerTest, CountsMemoryOfAllBatches) {
  start({1, "", 1 << 20, true});
  std::vector<std::string> ids;
  grpc::Status status;
  while (true) {
    grpc::ClientContext context;
    v1::CreateBatchResponse response;
    status = stub_->CreateBatch(&context, hopper_request(8, 7, 8), &response);
    if (!status.ok()) break;
    ids.push_back(response.batch_id());
    ASSERT_LT(ids.size(), 100u);
  }
  EXPECT_GT(ids.size(), 1u);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_NE(status.error_message().find("are allowed"), std::string::npos);
  EXPECT_TRUE(destroy(ids[0]).ok());
  grpc::ClientContext context;
  v1::CreateBatchResponse response;
  EXPECT_TRUE(stub_->CreateBatch(&context, hopper_request(8, 7, 8), &response).ok());
}

TEST_F(ServerTest, RefusesAnAddressInUse) {
  std::string error;
  EXPECT_FALSE(Server::start(server_->address(), {}, &error));
  EXPECT_EQ(error, "cannot listen on " + server_->address() +
                       ": the address is in use or not of this machine; choose another port, or 0 "
                       "for a free one");
}

TEST_F(ServerTest, RefusesAMessageOverTheLimit) {
  grpc::ClientContext context;
  auto request = hopper_request(1, 0, 1);
  request.mutable_model()->set_name(std::string(kMaxMessageBytes + 1, 'x'));
  v1::CreateBatchResponse response;
  EXPECT_EQ(stub_->CreateBatch(&context, request, &response).error_code(),
            grpc::StatusCode::RESOURCE_EXHAUSTED);
}

TEST_F(ServerTest, DescribesItself) {
  grpc::ClientContext context;
  v1::DescribeResponse response;
  ASSERT_TRUE(stub_->Describe(&context, {}, &response).ok());
  EXPECT_FALSE(response.version().empty());
  EXPECT_GT(response.lanes(), 0u);
  EXPECT_EQ(response.threads(), 2u);
  EXPECT_EQ(response.transports_size(), 2);
  EXPECT_EQ(response.memory_limit_bytes(), std::uint64_t{1} << 30);
}

// F11 of the reliability targets: random and randomly changed bodies to every unary method, and
// random rollout messages. The server answers each with a status and still works afterwards.
TEST_F(ServerTest, SurvivesMalformedMessages) {
  std::mt19937_64 random(test_seed());
  SCOPED_TRACE(::testing::Message() << "seed " << test_seed());
  grpc::GenericStub generic(channel_);
  const auto call = [&](const std::string& method, const std::string& body) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
    grpc::CompletionQueue queue;
    grpc::Slice slice(body);
    const auto pending = generic.PrepareUnaryCall(
        &context, "/sdpg.sim.v1.SimulationService/" + method, grpc::ByteBuffer(&slice, 1), &queue);
    pending->StartCall();
    grpc::ByteBuffer reply;
    grpc::Status status;
    pending->Finish(&reply, &status, nullptr);
    void* tag;
    bool ok;
    queue.Next(&tag, &ok);
    EXPECT_NE(status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED) << method;
    EXPECT_NE(status.error_code(), grpc::StatusCode::UNAVAILABLE) << method;
    EXPECT_NE(status.error_code(), grpc::StatusCode::UNKNOWN) << method;
    if (status.ok() && method == "CreateBatch") {
      v1::CreateBatchResponse created;
      std::vector<grpc::Slice> slices;
      reply.Dump(&slices);
      std::string bytes;
      for (const auto& s : slices) bytes.append(reinterpret_cast<const char*>(s.begin()), s.size());
      if (created.ParseFromString(bytes)) destroy(created.batch_id());
    }
  };
  const std::string good = hopper_request(2, 1, 2).SerializeAsString();
  for (int round = 0; round < 1500; ++round) {
    std::string body = good;
    const int changes = 1 + static_cast<int>(random() % 5);
    for (int i = 0; i < changes; ++i) body[random() % body.size()] = static_cast<char>(random());
    if (round % 10 == 0) body.resize(random() % body.size());
    call("CreateBatch", body);
  }
  for (int round = 0; round < 500; ++round) {
    std::string body(random() % 64, 0);
    for (char& c : body) c = static_cast<char>(random());
    for (const char* method : {"Describe", "DestroyBatch", "DescribeBatch"}) call(method, body);
  }
  const auto batch = create(v1::TRANSPORT_INLINE);
  for (int round = 0; round < 300; ++round) {
    Stream stream(*stub_, batch.batch_id());
    for (int message = 0; message < 6; ++message) {
      v1::RolloutRequest request;
      switch (random() % 5) {
        case 0:
          request.mutable_begin()->set_epoch(random() % 3 == 0 ? random() : 1);
          break;
        case 1: {
          auto* step = request.mutable_step();
          step->set_t(static_cast<std::uint32_t>(random() % 3));
          std::string bytes(random() % 3 == 0 ? random() % 100 : kNominals * kActions * 4, 0);
          for (char& c : bytes) c = static_cast<char>(random());
          step->set_mean(bytes);
          break;
        }
        case 2:
          request.mutable_end();
          break;
        case 3:
          request.mutable_credit()->set_chunks(static_cast<std::uint32_t>(random()));
          break;
        default:
          break;
      }
      if (!stream.send(request)) break;
    }
    stream.finish();
  }
  shared_segment(*stub_, create(v1::TRANSPORT_SHARED_MEMORY), 8);
}

}  // namespace
}  // namespace sdpg::server
