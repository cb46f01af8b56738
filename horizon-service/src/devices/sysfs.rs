//! Reads and authorises USB devices in sysfs, as the kernel's `Documentation/usb/authorization.rst` describes it.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use armor_policy::escaped_path;
use rustix::fs::{Access, access};

use crate::workloads::root::Root;

/// Where the kernel shows USB devices, once there is anything to do with USB.
pub const DEVICES: &str = "/sys/bus/usb/devices";
/// What [`Authorization`] controllers have that are made later. It is a module's parameter, whether or not that is a module.
const LATER: &str = "/sys/module/usbcore/parameters/authorized_default";

/// A `SysfsError` is a failure to read or write an attribute.
#[derive(Debug, thiserror::Error)]
#[error("{}: {error}", escaped_path(path))]
pub struct SysfsError {
    /// The attribute's path.
    pub path: PathBuf,
    /// The system's error.
    pub error: io::Error,
}

/// An `Authorization` is the kernel's own decision on new devices of a controller (`authorized_default`): 0 authorises none, 2
/// those that are built in, any other all of them.
pub type Authorization = i32;
/// The [`Authorization`] that authorises none.
pub const NONE: Authorization = 0;
/// The [`Authorization`] that authorises all of them.
pub const ALL: Authorization = 1;
/// The [`Authorization`] of devices that are built in.
pub const BUILT_IN: Authorization = 2;

/// A `Device` is a USB device that is not a controller's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// The name: the bus's number, a `-`, and the numbers of the ports on the way with `.` between them.
    pub name: String,
    /// The number of its directory. A device that is plugged in again has another one.
    pub id: u64,
}

impl Device {
    /// Returns the number of ports on the way from the host.
    pub fn level(&self) -> u8 {
        u8::try_from(1 + self.name.bytes().filter(|byte| *byte == b'.').count()).unwrap_or(u8::MAX)
    }

    /// Returns the name of its controller.
    pub fn controller(&self) -> String {
        format!("usb{}", self.name.split('-').next().unwrap_or_default())
    }
}

/// A `UsbTree` is what sysfs shows of USB.
#[derive(Debug, Clone)]
pub struct UsbTree {
    root: PathBuf,
}

/// `Present` is what there is at one moment.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Present {
    /// The names of the controllers, each of which is its root hub.
    pub controllers: Vec<String>,
    /// The devices. A hub comes before what is plugged into it.
    pub devices: Vec<Device>,
}

impl UsbTree {
    /// Returns the host's.
    pub fn of_host() -> Self {
        Self::below(Root::of_host().directory().unwrap_or(Path::new("/")))
    }

    /// Returns the one whose sysfs is below this directory.
    pub fn below(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// Returns whether the kernel has USB.
    pub fn exists(&self) -> bool {
        self.path(DEVICES).is_dir()
    }

    /// Returns what there is.
    ///
    /// # Errors
    /// Fails with [`SysfsError`] if the directory of devices cannot be read.
    pub fn look(&self) -> Result<Present, SysfsError> {
        let path = self.path(DEVICES);
        let failed = |error| SysfsError { path: path.clone(), error };
        let mut present = Present::default();
        for entry in fs::read_dir(&path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            // The kernel's names are ASCII. Those with a colon are interfaces.
            let Ok(name) = entry.file_name().into_string() else { continue };
            if name.contains(':') {
                continue;
            }
            // One without its directory is gone already.
            let Ok(directory) = fs::metadata(entry.path()) else { continue };
            match name.strip_prefix("usb") {
                Some(_) => present.controllers.push(name),
                None => present.devices.push(Device { name, id: directory.ino() }),
            }
        }
        present.controllers.sort();
        present.devices.sort_by_key(|device| (device.level(), device.name.clone()));
        Ok(present)
    }

    /// Returns whether a device of this name and number is there.
    pub fn has(&self, device: &Device) -> bool {
        fs::metadata(self.device(&device.name)).is_ok_and(|directory| directory.ino() == device.id)
    }

    /// Returns a controller's authorisation of new devices.
    ///
    /// # Errors
    /// This and the following functions fail with [`SysfsError`] if the attribute cannot be read or written.
    pub fn authorization(&self, controller: &str) -> Result<Authorization, SysfsError> {
        number(&self.device(controller).join("authorized_default"))
    }

    /// Sets a controller's authorisation of new devices.
    pub fn set_authorization(&self, controller: &str, to: Authorization) -> Result<(), SysfsError> {
        write(&self.device(controller).join("authorized_default"), to)
    }

    /// Returns what controllers get that are made later.
    pub fn authorization_of_later(&self) -> Result<Authorization, SysfsError> {
        number(&self.path(LATER))
    }

    /// Sets what controllers get that are made later.
    pub fn set_authorization_of_later(&self, to: Authorization) -> Result<(), SysfsError> {
        write(&self.path(LATER), to)
    }

    /// Returns whether a device is authorised.
    pub fn is_authorized(&self, device: &Device) -> Result<bool, SysfsError> {
        number(&self.device(&device.name).join("authorized")).map(|number| number != 0)
    }

    /// Authorises a device, or takes that from it. Its drivers are bound or unbound before this returns, which may take seconds.
    pub fn authorize(&self, device: &Device, authorized: bool) -> Result<(), SysfsError> {
        write(&self.device(&device.name).join("authorized"), i32::from(authorized))
    }

    /// Returns a device's descriptors.
    pub fn descriptors(&self, device: &Device) -> Result<Vec<u8>, SysfsError> {
        let path = self.device(&device.name).join("descriptors");
        fs::read(&path).map_err(|error| SysfsError { path, error })
    }

    /// Returns whether the firmware says that a device is built in.
    pub fn is_built_in(&self, device: &Device) -> bool {
        fs::read_to_string(self.device(&device.name).join("removable"))
            .is_ok_and(|text| text.trim() == "fixed")
    }

    /// Returns why devices could not be kept out, if there is USB at all.
    pub fn obstacle(&self) -> Option<SysfsError> {
        let attributes = || {
            let controllers = self.look()?.controllers;
            let of_controllers =
                controllers.iter().map(|controller| self.device(controller).join("authorized_default"));
            Ok([self.path(LATER)].into_iter().chain(of_controllers).collect::<Vec<_>>())
        };
        let attributes = match attributes() {
            Ok(attributes) => attributes,
            Err(error) => return self.exists().then_some(error),
        };
        attributes.into_iter().find_map(|path| {
            let writable = access(&path, Access::READ_OK | Access::WRITE_OK);
            writable.err().map(|error| SysfsError { path, error: error.into() })
        })
    }

    fn device(&self, name: &str) -> PathBuf {
        self.path(DEVICES).join(name)
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }
}

fn number(path: &Path) -> Result<i32, SysfsError> {
    let failed = |error| SysfsError { path: path.to_owned(), error };
    let text = fs::read_to_string(path).map_err(failed)?;
    text.trim().parse().map_err(|_| failed(io::Error::new(io::ErrorKind::InvalidData, "not a number")))
}

/// Writes to an attribute that is there; the kernel takes a number as a whole or not at all.
fn write(path: &Path, number: i32) -> Result<(), SysfsError> {
    let open = || fs::OpenOptions::new().write(true).truncate(true).open(path);
    let written = open().and_then(|mut file| io::Write::write_all(&mut file, number.to_string().as_bytes()));
    written.map_err(|error| SysfsError { path: path.to_owned(), error })
}
