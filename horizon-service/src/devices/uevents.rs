//! Listens to what the kernel says of devices.
//!
//! What a message says is not used: it is only a reason to look at sysfs. So neither a lost nor a forged one matters.

use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::netlink::{KOBJECT_UEVENT, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recvfrom, socket_with};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The group in which the kernel speaks; udev repeats it in another one.
const KERNEL: u32 = 1;
/// Size of the largest message at least (`UEVENT_BUFFER_SIZE` and a path).
const MESSAGE: usize = 8 << 10;
/// Maximum number of messages that are read at a time.
const MESSAGES: usize = 1024;

/// `Uevents` are the kernel's messages.
pub struct Uevents(AsyncFd<OwnedFd>);

impl Uevents {
    /// Begins to listen; needs tokio's runtime.
    ///
    /// # Errors
    /// Fails if there is no such socket.
    pub fn open() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, Some(KOBJECT_UEVENT))?;
        bind(&socket, &SocketAddrNetlink::new(0, KERNEL))?;
        // SAFETY: an `OwnedFd` stays the same open descriptor until it is dropped, which `AsyncFd` does after deregistering.
        let readable = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?;
        Ok(Self(readable))
    }

    /// Waits until the kernel says something of USB, or has said more than there was room for.
    ///
    /// # Errors
    /// Fails if the socket cannot be waited for or read.
    pub async fn about_usb(&mut self) -> io::Result<()> {
        loop {
            let mut ready = self.0.readable().await?;
            let mut is_about_usb = false;
            for _ in 0..MESSAGES {
                match message(ready.get_inner()) {
                    Ok(about) => is_about_usb |= about,
                    Err(Errno::WOULDBLOCK) => {
                        ready.clear_ready();
                        break;
                    }
                    Err(Errno::NOBUFS) => is_about_usb = true,
                    Err(Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            if is_about_usb {
                return Ok(());
            }
        }
    }
}

/// Reads a message, and returns whether it is the kernel's and about USB.
fn message(socket: &OwnedFd) -> Result<bool, Errno> {
    let mut buffer = [0; MESSAGE];
    let (length, _, sender) = recvfrom(socket, &mut buffer, RecvFlags::empty())?;
    let sender = sender.and_then(|sender| SocketAddrNetlink::try_from(sender).ok());
    let is_kernel = sender.is_some_and(|sender| sender.pid() == 0);
    Ok(is_kernel && is_about_usb(&buffer[..length]))
}

fn is_about_usb(message: &[u8]) -> bool {
    message
        .split(|byte| *byte == 0)
        .any(|field| field == b"SUBSYSTEM=usb" || field == b"DEVPATH=/module/usbcore")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_about_usb_counts() {
        let of_device = b"add@/devices/x/usb1/1-1\0ACTION=add\0SUBSYSTEM=usb\0DEVTYPE=usb_device\0";
        let of_module = b"add@/module/usbcore\0ACTION=add\0DEVPATH=/module/usbcore\0SUBSYSTEM=module\0";
        assert!(is_about_usb(of_device) && is_about_usb(of_module));
        for other in
            [&b"add@/x\0SUBSYSTEM=usbmisc\0"[..], b"add@/SUBSYSTEM=usb/x\0DEVPATH=/module/usb\0", b""]
        {
            assert!(!is_about_usb(other));
        }
    }

    #[test]
    fn what_another_process_sends_is_not_the_kernels() {
        let socket = || {
            let kind = SocketType::DGRAM;
            socket_with(AddressFamily::NETLINK, kind, SocketFlags::CLOEXEC, Some(KOBJECT_UEVENT)).unwrap()
        };
        // It is in no group, so nothing else comes.
        let (receiver, sender) = (socket(), socket());
        bind(&receiver, &SocketAddrNetlink::new(0, 0)).unwrap();
        let to = rustix::net::getsockname(&receiver).unwrap();
        match rustix::net::sendto(sender, b"add@/x\0SUBSYSTEM=usb\0", rustix::net::SendFlags::empty(), &to) {
            Ok(_) => assert_eq!(message(&receiver), Ok(false)),
            // Ordinary users may not even send.
            Err(error) => assert_eq!(error, Errno::PERM),
        }
    }
}
