// A proxy with long and narrow links, for benchmarks; see tests/fault/paced_proxy.h. Prints "ready <port>", and ends at
// the end of its input.
#include <CLI/CLI.hpp>
#include <chrono>
#include <iostream>
#include <string>

#include "tests/fault/paced_proxy.h"

int main(int argc, char** argv) {
  CLI::App app("Forwards connections, each at a rate and with a delay of its own");
  int target = 0;
  refit::Link link;
  double delay_ms = 0;
  app.add_option("--target", target, "port on this host")->required();
  app.add_option("--rate", link.rate, "bytes a second, of each connection and direction");
  app.add_option("--delay-ms", delay_ms, "each way");
  CLI11_PARSE(app, argc, argv);
  link.delay =
      std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::duration<double, std::milli>(delay_ms));
  const refit::PacedProxy proxy(target, link);
  std::cout << "ready " << proxy.port() << std::endl;
  std::string line;
  while (std::getline(std::cin, line)) {
  }
  return 0;
}
