# shellcheck shell=bash disable=SC2154
# Debian's packages and kernels for guests: fetched once, with apt and its signature checks, into target/vm; the machine's own
# apt is not touched. Sourced after lib.sh. Of the rest one run at a time does something, the one that called lock_vm.

# packages_of ARCH: whose packages are meant from here on, as Debian calls it; each has a directory of its own, `vm`.
packages_of() {
  arch=$1 vm=$target/vm
  [[ $arch == amd64 ]] || vm+=/$arch
}
packages_of amd64

# lock_vm: waits until no other run fetches or assembles, and keeps others from it until `flock -u "$lock"`.
lock_vm() {
  mkdir -p "$target/vm"
  exec {lock}>"$target/vm/lock"
  flock "$lock"
}

# suite_of KERNEL
suite_of() {
  case ${1%-generic} in
    6.1) echo bookworm ;;
    6.12) echo trixie ;;
    latest) echo sid ;;
    *) die "kernel '$1' is not one of 6.1, 6.12, latest, or one of them with -generic" ;;
  esac
}

# private_apt SUITE TOOL ARGUMENT...: an apt tool that sees only SUITE of Debian, with its own state below target/vm.
private_apt() {
  local suite=$1 dir=$vm/apt/$1
  shift
  # Old lists name packages that the mirror has replaced since.
  if [[ -z $(find "$dir/ready" -mmin -360 2>/dev/null) ]]; then
    mkdir -p "$dir"/{lists/partial,archives/partial,etc/empty}
    : >"$dir/status"
    echo "deb [arch=$arch signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian $suite main" \
      >"$dir/etc/sources.list"
    {
      # How this machine reaches the network (proxies, retries) stays as its owner set it.
      apt-config dump Acquire | grep -v '^Acquire::IndexTargets'
      cat <<CONF
Dir::State "$dir"; Dir::State::lists "lists"; Dir::State::status "$dir/status";
Dir::Cache "$dir"; Dir::Cache::archives "archives";
Dir::Etc "$dir/etc"; Dir::Etc::sourcelist "sources.list"; Dir::Etc::sourceparts "empty";
Dir::Etc::main "none"; Dir::Etc::parts "empty"; Dir::Etc::trusted "none"; Dir::Etc::trustedparts "empty";
Dir::Etc::preferences "none"; Dir::Etc::preferencesparts "empty";
Acquire::Languages "none"; APT::Architecture "$arch"; APT::Architectures { "$arch"; }; APT::Sandbox::User "";
CONF
    } >"$dir/apt.conf"
    APT_CONFIG=$dir/apt.conf apt-get -qq update || die "apt cannot read Debian $suite's package list"
    touch "$dir/ready"
  fi
  APT_CONFIG=$dir/apt.conf "$@"
}

# unpack SUITE DIRECTORY PACKAGE...
unpack() {
  local suite=$1 into=$2 packages=$vm/apt/$1/packages
  shift 2
  rm -rf "$into" "$packages"
  mkdir -p "$into" "$packages"
  (cd "$packages" && private_apt "$suite" apt-get -qq download "$@") || die "cannot download $* of Debian $suite"
  local package
  for package in "$packages"/*.deb; do dpkg-deb -x "$package" "$into"; done
  rm -rf "$packages"
}

# archive DIRECTORY: as an initramfs. Uncompressed: unpacking costs an emulated processor more than reading does.
archive() { (cd "$1" && find . -mindepth 1 -print0 | LC_ALL=C sort -z | cpio --quiet -0 -o -H newc -R 0:0 --reproducible); }

# unpack_kernel KERNEL DIRECTORY: what its packages hold, and `vmlinuz`. Sets `release`.
unpack_kernel() {
  local suite image parts meta=linux-image-cloud-$arch
  # The one for clouds has no drivers for USB.
  [[ $1 != *-generic ]] || meta=linux-image-$arch
  suite=$(suite_of "$1")
  echo "fetching Debian $suite's kernel for $arch" >&2
  image=$(private_apt "$suite" apt-cache depends "$meta" |
    sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p')
  [[ $image ]] || die "Debian $suite has no $meta"
  release=${image#linux-image-}
  # From 7.x on the image package is empty and depends on the ones with the kernel and its modules.
  mapfile -t parts < <(private_apt "$suite" apt-cache depends "$image" | sed -n "s/^ *Depends: \(linux-.*-$release\)$/\1/p")
  unpack "$suite" "$2" "$image" "${parts[@]}"
  find "$2" -name 'vmlinuz*' -type f -exec mv {} "$2/vmlinuz" \;
  [[ -e $2/vmlinuz ]] || die "Debian $suite's $image holds no kernel"
}

# fetch_kernel KERNEL: into KERNEL below `vm`; `vmlinuz`, the initramfs `modules.cpio` with what guests need at least, and all
# `modules`.
fetch_kernel() {
  local kernel_dir=$vm/$1 release new modules group module file name
  local groups=("overlay:overlay" "disk:virtio_pci virtio_blk ext4")
  [[ $1 != *-generic ]] || groups+=("usb:xhci_pci usbhid hid_generic usb_storage sd_mod")
  [[ ! -d $kernel_dir/modules ]] || return 0
  new=$kernel_dir.new
  unpack_kernel "$1" "$new"
  # Newer packages install below /usr/lib; depmod and modprobe look below /lib.
  [[ -d $new/lib/modules ]] || ln -sT usr/lib "$new/lib"
  depmod -b "$new" "$release"
  modules=$new/initramfs/usr/lib/armor-vm
  mkdir -p "$modules"
  for group in "${groups[@]}"; do
    for module in ${group#*:}; do
      # Dependencies come first; what is built into the kernel needs no file.
      modprobe -d "$new" -S "$release" --show-depends "$module" | sed -n 's/^insmod *//p'
    done | awk '!seen[$1]++ {print $1}' | while read -r file; do
      name=$(basename "${file%.ko*}").ko
      case $file in
        *.xz) xz -dc "$file" ;;
        *.zst) zstd -dcq "$file" ;;
        *) cat "$file" ;;
      esac >"$modules/$name"
      echo "$name"
    done >"$modules/${group%%:*}.order"
  done
  archive "$new/initramfs" >"$new/modules.cpio"
  mv "$new/lib/modules" "$new/modules"
  rm -rf "${new:?}"/{usr,lib,boot,initramfs} "$kernel_dir"
  mv "$new" "$kernel_dir"
}
