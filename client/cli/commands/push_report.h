// What `refit push` says of what it did.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "client/cli/options/shard_options.h"
#include "client/native/shard_source.h"
#include "refit/version_push.h"

namespace refit::cli {

struct PushReport {
  VersionSummary version;
  RankOptions rank;
  size_t native_tensors = 0;  // native tensors that some output tensor needs
  size_t excluded = 0;        // native tensors that are excluded
  size_t shards = 0;          // shards that are not empty
  uint64_t shard_bytes = 0;   // bytes of this rank's shards; of all tensors if the push is not sharded
  uint64_t unsent_bytes = 0;  // part of shard_bytes that another rank sends
  bool synthetic = false;
  bool resident = false;
  double read_seconds = 0;
  double push_seconds = 0;
  double commit_seconds = 0;
  double total_seconds = 0;
};

// Notes what is to be pushed of the source.
void Measure(const ShardSource& source, const VersionPush& push, PushReport& report);

// "159 native tensors, 47.8 MB", or "rank 3 of 8, 120 shards, 5.9 MB".
std::string WhatIsPushed(const PushReport& report);

// On stdout, for people.
void PrintReport(const PushReport& report);
nlohmann::ordered_json ReportJson(const PushReport& report);

}  // namespace refit::cli
