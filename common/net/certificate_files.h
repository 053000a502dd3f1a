// Certificates and keys from files, replaced while connections come and go.
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

// Paths of PEM files. `ca`: who may sign the peer's certificate; empty: nobody is asked. `certificate` (with what leads
// up to the authority, if anything does) and `key`: our own; both or neither.
struct CertificatePaths {
  std::string ca;
  std::string certificate;
  std::string key;
};

// gRPC watches files by itself, but lets go of the certificates in use before it knows whether the new ones are any
// good. So it is given copies in memory, which only ever hold what was checked: that certificates can be read, that
// ours is valid now and fits the key. The files are looked at once a second; new connections use what changed about two
// seconds later. Thread-safe.
class CertificateFiles {
 public:
  // INVALID_ARGUMENT, naming the file, for what cannot be used; other codes as ReadSecretFile (keys) and ReadSmallFile.
  static absl::StatusOr<std::shared_ptr<CertificateFiles>> Load(CertificatePaths paths, ReloadReport report);
  ~CertificateFiles();
  CertificateFiles(const CertificateFiles&) = delete;
  CertificateFiles& operator=(const CertificateFiles&) = delete;

  // For credentials; this object must outlive what is made of them.
  std::shared_ptr<grpc::experimental::CertificateProviderInterface> MakeProvider() const;

 private:
  // A file in memory whose contents are replaced at once or not at all.
  class Copy {
   public:
    ~Copy();
    absl::Status Replace(const std::string& contents);
    // Empty while it holds nothing.
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
  Copy identity_;  // certificates and key in one, so that they always go together
  Stamps stamps_;

  std::mutex mutex_;
  std::condition_variable ending_;
  bool ended_ = false;
  std::thread watcher_;
};

}  // namespace refit
