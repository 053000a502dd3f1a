// What one writes first: generated protobuf, the synchronous API, chunks of 2 MiB, copied into the receiver's memory.
//
//   bench-grpc-plain --bytes N --serve     prints "ready <port>"
//   bench-grpc-plain --bytes N --port P    prints "ready"; for each line of stdin receives N bytes, prints the seconds
// With --tls-dir both sides authenticate: ca.pem, server.pem, server.key, worker.pem, worker.key, as `refit certs`
// makes them.
#include <grpcpp/grpcpp.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstring>
#include <fstream>
#include <iostream>
#include <iterator>
#include <memory>
#include <string>

#include "grpc_plain.grpc.pb.h"
#include "tests/bench/baselines/warm_region.h"

namespace refit::baselines {
namespace {

constexpr uint64_t kChunkBytes = 2 << 20;
constexpr int kMaxMessageBytes = 4 << 20;

struct Flags {
  bool serve = false;
  uint16_t port = 0;
  uint64_t bytes = 0;
  std::string tls_dir;
};

std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::shared_ptr<grpc::ServerCredentials> ServerCredentials(const std::string& dir) {
  if (dir.empty()) return grpc::InsecureServerCredentials();
  grpc::SslServerCredentialsOptions options(GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
  options.pem_root_certs = ReadFile(dir + "/ca.pem");
  options.pem_key_cert_pairs.push_back({ReadFile(dir + "/server.key"), ReadFile(dir + "/server.pem")});
  return grpc::SslServerCredentials(options);
}

std::shared_ptr<grpc::ChannelCredentials> ChannelCredentials(const std::string& dir) {
  if (dir.empty()) return grpc::InsecureChannelCredentials();
  return grpc::SslCredentials(
      {ReadFile(dir + "/ca.pem"), ReadFile(dir + "/worker.key"), ReadFile(dir + "/worker.pem")});
}

class PlainService final : public Plain::Service {
 public:
  explicit PlainService(std::shared_ptr<Buffer> region) : region_(std::move(region)) {}

  grpc::Status Get(grpc::ServerContext*, const Request* request, grpc::ServerWriter<Chunk>* writer) override {
    Chunk chunk;
    if (request->bytes() > region_->size()) return {grpc::StatusCode::INVALID_ARGUMENT, "more than there is"};
    for (uint64_t offset = 0; offset < request->bytes(); offset += kChunkBytes) {
      const uint64_t size = std::min(kChunkBytes, request->bytes() - offset);
      chunk.set_name("model.layers.0.experts.gate_up_proj");
      chunk.set_offset(offset);
      chunk.set_data(region_->data() + offset, size);
      if (!writer->Write(chunk)) return grpc::Status::CANCELLED;
    }
    return grpc::Status::OK;
  }

 private:
  const std::shared_ptr<Buffer> region_;
};

absl::Status Serve(const Flags& flags, std::shared_ptr<Buffer> region) {
  PlainService service(std::move(region));
  int port = 0;
  grpc::ServerBuilder builder;
  builder.AddListeningPort("127.0.0.1:0", ServerCredentials(flags.tls_dir), &port);
  builder.SetMaxReceiveMessageSize(kMaxMessageBytes);
  builder.RegisterService(&service);
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (server == nullptr || port == 0) return absl::UnavailableError("cannot listen");
  std::cout << "ready " << port << std::endl;
  server->Wait();
  return absl::OkStatus();
}

absl::Status Receive(Plain::Stub& stub, absl::Span<std::byte> region) {
  grpc::ClientContext context;
  Request request;
  request.set_bytes(region.size());
  const std::unique_ptr<grpc::ClientReader<Chunk>> reader = stub.Get(&context, request);
  uint64_t received = 0;
  for (Chunk chunk; reader->Read(&chunk);) {
    const std::string& data = chunk.data();
    if (chunk.offset() > region.size() || data.size() > region.size() - chunk.offset()) {
      return absl::InternalError("a chunk that does not fit");
    }
    std::memcpy(region.data() + chunk.offset(), data.data(), data.size());
    received += data.size();
  }
  const grpc::Status status = reader->Finish();
  if (!status.ok()) return absl::UnavailableError(status.error_message());
  return received == region.size() ? absl::OkStatus() : absl::DataLossError("fewer bytes than asked for");
}

absl::Status ReceiveOften(const Flags& flags, absl::Span<std::byte> region) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMaxMessageBytes);
  // The certificate is for localhost.
  const std::string address = "localhost:" + std::to_string(flags.port);
  const std::shared_ptr<grpc::Channel> channel =
      grpc::CreateCustomChannel(address, ChannelCredentials(flags.tls_dir), arguments);
  if (!channel->WaitForConnected(std::chrono::system_clock::now() + std::chrono::seconds(10))) {
    return absl::UnavailableError("cannot connect to " + address);
  }
  const std::unique_ptr<Plain::Stub> stub = Plain::NewStub(channel);
  std::cout << "ready" << std::endl;
  for (std::string line; std::getline(std::cin, line);) {
    const auto begin = std::chrono::steady_clock::now();
    if (absl::Status status = Receive(*stub, region); !status.ok()) return status;
    std::cout << std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count() << std::endl;
  }
  return absl::OkStatus();
}

int Main(int argc, char** argv) {
  CLI::App app("Bytes through gRPC as one writes it first, for benchmarks");
  Flags flags;
  app.add_flag("--serve", flags.serve);
  app.add_option("--port", flags.port);
  app.add_option("--bytes", flags.bytes)->required();
  app.add_option("--tls-dir", flags.tls_dir);
  CLI11_PARSE(app, argc, argv);
  absl::StatusOr<std::shared_ptr<Buffer>> region = MakeWarmRegion(flags.bytes);
  absl::Status status = region.status();
  if (status.ok()) status = flags.serve ? Serve(flags, *std::move(region)) : ReceiveOften(flags, (*region)->span());
  if (!status.ok()) std::cerr << "bench-grpc-plain: " << status.ToString() << "\n";
  return status.ok() ? 0 : 1;
}

}  // namespace
}  // namespace refit::baselines

int main(int argc, char** argv) { return refit::baselines::Main(argc, argv); }
