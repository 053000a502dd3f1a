# `cmake --install`: the programs with manual pages and completion, the libraries with their headers and protos, and a
# package that find_package(refit) finds.
#
#   find_package(refit REQUIRED)                    refit::client and what it stands on; no LibTorch, no prometheus-cpp
#   find_package(refit REQUIRED COMPONENTS server)  also refit::server
#   find_package(refit REQUIRED COMPONENTS torch)   also refit::torch, what faces LibTorch
#
# refit.pc and refit-server.pc say the same to pkg-config.
#
# Components: refit and refit-server, the programs with their manual; dev, all else.
include(CMakePackageConfigHelpers)
include(RefitManual)
set(CMAKE_INSTALL_DEFAULT_COMPONENT_NAME dev)

# Sets `out` to all targets in `directory` and below.
function(refit_collect_targets directory out)
  get_property(found DIRECTORY ${directory} PROPERTY BUILDSYSTEM_TARGETS)
  get_property(children DIRECTORY ${directory} PROPERTY SUBDIRECTORIES)
  foreach(child ${children})
    refit_collect_targets(${child} below)
    list(APPEND found ${below})
  endforeach()
  set(${out} ${found} PARENT_SCOPE)
endfunction()

# Sets `out` to whether `target` needs LibTorch, directly or through other targets of ours.
function(refit_needs_torch target out)
  set(${out} FALSE PARENT_SCOPE)
  get_target_property(dependencies ${target} LINK_LIBRARIES)
  foreach(dependency ${dependencies})
    string(REGEX REPLACE "^refit::" "refit_" dependency "${dependency}")
    if(dependency STREQUAL "refit_libtorch")
      set(${out} TRUE PARENT_SCOPE)
    elseif(dependency MATCHES "^refit_" AND TARGET ${dependency} AND NOT dependency STREQUAL "refit_flags")
      refit_needs_torch(${dependency} needs)
      if(needs)
        set(${out} TRUE PARENT_SCOPE)
      endif()
    endif()
  endforeach()
endfunction()

set(refit_core_libraries)
set(refit_torch_libraries)
foreach(folder proto common server client)
  refit_collect_targets(${PROJECT_SOURCE_DIR}/${folder} targets)
  foreach(target ${targets})
    get_target_property(type ${target} TYPE)
    if(type STREQUAL "STATIC_LIBRARY" OR type STREQUAL "INTERFACE_LIBRARY")
      refit_needs_torch(${target} needs)
      if(needs)
        list(APPEND refit_torch_libraries ${target})
      else()
        list(APPEND refit_core_libraries ${target})
      endif()
    endif()
  endforeach()
endforeach()

set(refit_package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/refit)
install(TARGETS refit_cli RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR} COMPONENT refit)
install(TARGETS refit_server_main RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR} COMPONENT refit-server)
install(TARGETS ${refit_core_libraries} EXPORT refitTargets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(EXPORT refitTargets NAMESPACE refit:: DESTINATION ${refit_package_dir})
if(REFIT_WITH_TORCH)
  install(TARGETS refit_cli_torch RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR} COMPONENT refit)
  set_target_properties(refit_libtorch PROPERTIES EXPORT_NAME libtorch)
  install(TARGETS refit_libtorch refit_torch ${refit_torch_libraries} EXPORT refitTorchTargets
    ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
  install(EXPORT refitTorchTargets NAMESPACE refit:: DESTINATION ${refit_package_dir})
endif()

foreach(area common client server)
  install(DIRECTORY ${area}/include/refit DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "*.h")
endforeach()
install(DIRECTORY ${PROJECT_BINARY_DIR}/include/refit DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(DIRECTORY ${PROJECT_BINARY_DIR}/proto/refit DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}
  FILES_MATCHING PATTERN "*.pb.h" PATTERN "*.grpc.pb.h" EXCLUDE)
install(DIRECTORY proto/refit DESTINATION ${CMAKE_INSTALL_DATADIR}/refit/proto FILES_MATCHING PATTERN "*.proto")

configure_package_config_file(${CMAKE_CURRENT_LIST_DIR}/refitConfig.cmake.in ${PROJECT_BINARY_DIR}/refitConfig.cmake
  INSTALL_DESTINATION ${refit_package_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/refitConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/refitConfig.cmake ${PROJECT_BINARY_DIR}/refitConfigVersion.cmake
  DESTINATION ${refit_package_dir})

include(RefitPkgConfig)
refit_pkg_config(refit refit_client "Pushes and pulls model weights over gRPC: the client library")
refit_pkg_config(refit-server refit_server "Serves model weights over gRPC from within a trainer: the embeddable service")
