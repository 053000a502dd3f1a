# pkg-config files, made of what the targets link: one for clients, one for trainers that embed the service.
#
#   c++ main.cc $(pkg-config --cflags --libs refit)          refit::client
#   c++ main.cc $(pkg-config --cflags --libs refit-server)   refit::server

# Sets the variable `archives_name` to our libraries that `target` links, each before those that it needs, and
# `packages_name` to the pkg-config names of the other libraries.
function(refit_collect_links target archives_name packages_name)
  if(${target} IN_LIST ${archives_name})
    return()
  endif()
  set(before ${${archives_name}})
  set(needed ${${packages_name}})
  get_target_property(dependencies ${target} LINK_LIBRARIES)
  foreach(dependency ${dependencies})
    string(REGEX REPLACE "^refit::" "refit_" dependency "${dependency}")
    if(dependency MATCHES "^refit_" AND TARGET ${dependency})
      refit_collect_links(${dependency} before needed)
    elseif(dependency MATCHES "^absl::(.*)")
      list(APPEND needed absl_${CMAKE_MATCH_1})
    elseif(dependency MATCHES "^PkgConfig::(.*)")
      string(REGEX REPLACE "^(xxhash|hwy|zstd|cares)$" "lib\\1" name ${CMAKE_MATCH_1})
      list(APPEND needed ${name})
    elseif(dependency MATCHES "^OpenSSL::(.*)")
      string(TOLOWER lib${CMAKE_MATCH_1} name)
      list(APPEND needed ${name})
    elseif(dependency STREQUAL "gRPC::grpc++_reflection")
      list(APPEND before grpc++_reflection)  # has no pkg-config file
    elseif(dependency MATCHES "^(gRPC|re2|nlohmann_json)::(.*)")
      list(APPEND needed ${CMAKE_MATCH_2})
    elseif(dependency MATCHES "^prometheus-cpp::(.*)")
      list(APPEND needed prometheus-cpp-${CMAKE_MATCH_1})
    elseif(dependency STREQUAL "protobuf::libprotobuf")
      list(APPEND needed protobuf)
    elseif(NOT dependency MATCHES "BUILD_INTERFACE|^refit_flags$")
      message(FATAL_ERROR "${target} links ${dependency}, for which no pkg-config name is known")
    endif()
  endforeach()
  get_target_property(type ${target} TYPE)
  if(type STREQUAL "STATIC_LIBRARY")
    list(PREPEND before ${target})
  endif()
  list(REMOVE_DUPLICATES needed)
  set(${archives_name} ${before} PARENT_SCOPE)
  set(${packages_name} ${needed} PARENT_SCOPE)
endfunction()

function(refit_pkg_config name target description)
  set(archives)
  set(packages)
  refit_collect_links(${target} archives packages)
  list(SORT packages)
  list(TRANSFORM archives PREPEND -l)
  list(JOIN archives " " libraries)
  list(JOIN packages " " requires)
  # Relative to the file's own place, because a prefix may be moved.
  cmake_path(RELATIVE_PATH CMAKE_INSTALL_PREFIX BASE_DIRECTORY ${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig
    OUTPUT_VARIABLE up)
  file(WRITE ${PROJECT_BINARY_DIR}/${name}.pc "prefix=\${pcfiledir}/${up}
libdir=\${prefix}/${CMAKE_INSTALL_LIBDIR}
includedir=\${prefix}/${CMAKE_INSTALL_INCLUDEDIR}

Name: ${name}
Description: ${description}
Version: ${PROJECT_VERSION}
Requires: ${requires}
Libs: -L\${libdir} ${libraries}
Cflags: -I\${includedir}
")
  install(FILES ${PROJECT_BINARY_DIR}/${name}.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
endfunction()
