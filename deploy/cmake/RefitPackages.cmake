# Debian packages: refit-server (with the systemd unit and its user), refit (the command line), librefit-dev. Made by
# deploy/packages.sh, which configures with the prefix /usr.
include_guard()

# The unit, with the programs' place; its user, and its settings.
file(READ ${PROJECT_SOURCE_DIR}/deploy/systemd/refit-server.service refit_unit)
string(REPLACE /usr/local/bin/ ${CMAKE_INSTALL_PREFIX}/bin/ refit_unit "${refit_unit}")
file(WRITE ${PROJECT_BINARY_DIR}/packages/refit-server.service "${refit_unit}")
install(FILES ${PROJECT_BINARY_DIR}/packages/refit-server.service DESTINATION /usr/lib/systemd/system
  COMPONENT refit-server)
install(FILES deploy/systemd/refit.sysusers.conf DESTINATION /usr/lib/sysusers.d RENAME refit.conf
  COMPONENT refit-server)
install(FILES deploy/systemd/refit-server.toml DESTINATION /etc/refit COMPONENT refit-server)

# refit_debian_package(<component> <package> <description>): what Debian wants beside the files themselves.
function(refit_debian_package component package description)
  set(folder ${PROJECT_BINARY_DIR}/packages/${package})
  file(WRITE ${folder}/changelog "${package} (${PROJECT_VERSION}) unstable; urgency=medium\n\n  * See CHANGELOG.md.\n\n"
    " -- ${CPACK_PACKAGE_CONTACT}  Thu, 01 Jan 2026 00:00:00 +0000\n")
  execute_process(COMMAND gzip -9nf ${folder}/changelog COMMAND_ERROR_IS_FATAL ANY)
  install(FILES ${folder}/changelog.gz deploy/debian/copyright DESTINATION ${CMAKE_INSTALL_DATADIR}/doc/${package}
    COMPONENT ${component})
  string(TOUPPER ${component} key)
  set(CPACK_DEBIAN_${key}_PACKAGE_NAME ${package} PARENT_SCOPE)
  set(CPACK_DEBIAN_${key}_DESCRIPTION "${description}" PARENT_SCOPE)
endfunction()

set(CPACK_PACKAGE_NAME refit)
set(CPACK_PACKAGE_CONTACT "The refit maintainers <maintainers@refit.invalid>")
set(CPACK_GENERATOR DEB)
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_COMPONENTS_ALL refit refit-server dev)
set(CPACK_STRIP_FILES ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)
set(CPACK_DEBIAN_PACKAGE_PRIORITY optional)
refit_debian_package(refit refit
  "Pushes a trainer's weights to a refit-server, pulls them as a worker does, and\nshows the service, its versions and its workers.")
refit_debian_package(refit-server refit-server
  "Takes a trainer's tensors after each step, converts them to Hugging Face's\nnames and layout as they arrive, and streams them to inference workers over\ngRPC. A version becomes visible to workers whole, or not at all.")
refit_debian_package(dev librefit-dev
  "Static libraries, headers, protocol files and a CMake package for trainers and\ninference engines that use a refit-server, or embed it.")
set(CPACK_DEBIAN_REFIT_PACKAGE_SECTION utils)
set(CPACK_DEBIAN_REFIT-SERVER_PACKAGE_SECTION net)
set(CPACK_DEBIAN_DEV_PACKAGE_SECTION libdevel)
set(CPACK_DEBIAN_DEV_PACKAGE_SHLIBDEPS OFF)
set(CPACK_DEBIAN_DEV_PACKAGE_DEPENDS "libgrpc++-dev, libprotobuf-dev, libabsl-dev, libssl-dev, libre2-dev, libxxhash-dev, libhwy-dev, nlohmann-json3-dev, prometheus-cpp-dev, pkg-config")
set(CPACK_DEBIAN_REFIT-SERVER_PACKAGE_DEPENDS "init-system-helpers (>= 1.51), systemd | systemd-standalone-sysusers")
set(CPACK_DEBIAN_REFIT-SERVER_PACKAGE_SUGGESTS refit)
set(scripts ${PROJECT_SOURCE_DIR}/deploy/debian)
set(CPACK_DEBIAN_REFIT-SERVER_PACKAGE_CONTROL_EXTRA
  ${scripts}/conffiles ${scripts}/postinst ${scripts}/prerm ${scripts}/postrm)
include(CPack)
