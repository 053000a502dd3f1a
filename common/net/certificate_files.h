// Reads certificates and keys from files, and reloads them while connections are in use.
#pragma once

#include <grpcpp/security/tls_certificate_provider.h>

#include <array>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "absl/status/statusor.h"
#include "common/net/watched_file.h"

namespace refit {

// Who shows a certificate: the end that accepts connections, or the one that opens them.
enum class TlsEnd { kService, kClient };

// Paths of PEM files. `ca`: the authority that signs the peer's certificate; empty: the peer is not authenticated.
// `certificate` (with intermediate certificates, if any) and `key`: our own, for `end`. Both or neither.
struct CertificatePaths {
  std::string ca;
  std::string certificate;
  std::string key;
  TlsEnd end = TlsEnd::kClient;
};

// gRPC can watch files by itself. But it drops the current certificates before it knows whether the new ones are valid.
// So gRPC gets copies in memory, which only ever contain checked files: certificates are readable, and ours is valid
// now, matches the key and is for our end of the connection. The files are checked once a second. New connections use
// changed files about two seconds later. Thread-safe.
class CertificateFiles {
 public:
  // INVALID_ARGUMENT, naming the file, for a file that cannot be used; other codes as ReadSecretFile (keys) and
  // ReadSmallFile.
  static absl::StatusOr<std::shared_ptr<CertificateFiles>> Load(CertificatePaths paths, ReloadReport report);
  ~CertificateFiles();
  CertificateFiles(const CertificateFiles&) = delete;
  CertificateFiles& operator=(const CertificateFiles&) = delete;

  // For credentials. This object must outlive them.
  std::shared_ptr<grpc::experimental::CertificateProviderInterface> MakeProvider() const;

 private:
  // A file in memory. Its contents are replaced as a whole, or not at all.
  class Copy {
   public:
    ~Copy();
    absl::Status Replace(const std::string& contents);
    // Empty while the copy has no contents.
    std::string path() const;

   private:
    int fd_ = -1;
  };
  using Stamps = std::array<FileStamp, 3>;

  CertificateFiles(CertificatePaths paths, ReloadReport report);
  Stamps CurrentStamps() const;
  absl::Status Read();
  void Watch();

  const CertificatePaths paths_;
  const ReloadReport report_;
  Copy authorities_;
  Copy identity_;  // certificates and key in one file, so that they always match
  Stamps stamps_;

  std::mutex mutex_;
  std::condition_variable ending_;
  bool ended_ = false;
  std::thread watcher_;
};

}  // namespace refit
