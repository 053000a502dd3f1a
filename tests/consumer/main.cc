// A small program that uses the library: connecting to a port without a service returns an error that explains it.
#include <refit/refit.h>

#include <chrono>
#include <iostream>

int main() {
  refit::ChannelOptions options;
  options.address = "127.0.0.1:1";
  options.connect_timeout = std::chrono::milliseconds(500);
  const auto subscriber = refit::Subscriber::Connect(options);
  std::cout << subscriber.status() << "\n";
  return absl::IsUnavailable(subscriber.status()) ? 0 : 1;
}
