//! Reads what a device says that it is, from the descriptors that the kernel has read of it.
//!
//! Invariant: every interface of every configuration and alternate setting counts, as a driver or a program may choose any of
//! them later. If that cannot be told, reading fails.

use std::collections::BTreeSet;

use armor_policy::device::Function;

/// Length of a device's own descriptor, which comes first.
const DEVICE: usize = 18;
/// The length of all that sysfs shows. Configurations may be longer together, and the rest is then not seen.
const SHOWN: usize = DEVICE + 65535;
/// The type of an interface's descriptor.
const INTERFACE: u8 = 4;

/// A `DescriptorError` is the reason why it cannot be told what a device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DescriptorError {
    /// There are fewer bytes than a device's own descriptor has, or one in the middle has no valid length.
    #[error("its descriptors are malformed")]
    Malformed,
    /// The kernel does not show all of them.
    #[error("it has more descriptors than the kernel shows")]
    Long,
}

/// Returns what a device is: its own class unless that is 0, and those of its interfaces.
///
/// # Errors
/// Fails with [`DescriptorError`] if there may be more than is found.
pub fn functions(descriptors: &[u8]) -> Result<Vec<Function>, DescriptorError> {
    let (device, mut rest) = descriptors.split_at_checked(DEVICE).ok_or(DescriptorError::Malformed)?;
    if descriptors.len() >= SHOWN {
        return Err(DescriptorError::Long);
    }
    let mut functions = BTreeSet::new();
    while !rest.is_empty() {
        let length = usize::from(rest[0]);
        let (descriptor, behind) = rest.split_at_checked(length).ok_or(DescriptorError::Malformed)?;
        match *descriptor {
            [] | [_] => return Err(DescriptorError::Malformed),
            // As for the kernel, one that is shorter is none.
            [_, INTERFACE, _, _, _, class, sub_class, protocol, _, ..] => {
                functions.insert(function(class, sub_class, protocol));
            }
            _ => {}
        }
        rest = behind;
    }
    // Class 0 says that the interfaces have the classes.
    if device[4] != 0 || functions.is_empty() {
        functions.insert(function(device[4], device[5], device[6]));
    }
    Ok(functions.into_iter().collect())
}

const fn function(class: u8, sub_class: u8, protocol: u8) -> Function {
    Function { class, sub_class, protocol }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Returns the descriptors of a device of that class, with one configuration that has these interfaces.
    pub(in crate::devices) fn descriptors(own: [u8; 3], interfaces: &[[u8; 3]]) -> Vec<u8> {
        let mut all = vec![18, 1, 0, 2, own[0], own[1], own[2], 64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        all.extend([9, 2, 0, 0, interfaces.len() as u8, 1, 0, 0x80, 50]);
        for (number, [class, sub_class, protocol]) in (0u8..).zip(interfaces) {
            all.extend([9, 4, number, 0, 1, *class, *sub_class, *protocol, 0]);
            all.extend([7, 5, 0x81, 3, 8, 0, 10]);
        }
        all
    }

    #[test]
    fn all_interfaces_count_and_the_own_class_unless_it_is_0() {
        let (hid, storage) = ([3, 1, 1], [8, 6, 80]);
        let [of_hid, of_storage] =
            [hid, storage].map(|[class, sub, protocol]| function(class, sub, protocol));
        assert_eq!(functions(&descriptors([0; 3], &[storage, hid, hid])), Ok(vec![of_hid, of_storage]));
        assert_eq!(functions(&descriptors([9, 0, 0], &[hid])), Ok(vec![of_hid, function(9, 0, 0)]));
        assert_eq!(functions(&descriptors([0, 1, 2], &[])), Ok(vec![function(0, 1, 2)]));
        assert_eq!(functions(&descriptors([0; 3], &[[0; 3]])), Ok(vec![function(0, 0, 0)]));
        // A second configuration follows the first.
        let mut two = descriptors([0; 3], &[hid]);
        two.extend(&descriptors([0; 3], &[storage])[DEVICE..]);
        assert_eq!(functions(&two), Ok(vec![of_hid, of_storage]));
    }

    #[test]
    fn what_may_hide_an_interface_is_an_error() {
        let good = descriptors([0; 3], &[[3, 1, 1]]);
        for cut in [0, 17, DEVICE + 1, good.len() - 1] {
            assert_eq!(functions(&good[..cut]), Err(DescriptorError::Malformed), "{cut}");
        }
        for length in [0, 1, 200] {
            let mut bad = good.clone();
            bad[DEVICE] = length;
            assert_eq!(functions(&bad), Err(DescriptorError::Malformed), "{length}");
        }
        let mut long = good;
        long.resize(SHOWN - 1, 255);
        assert_eq!(functions(&long), Err(DescriptorError::Malformed));
        long.push(0);
        assert_eq!(functions(&long), Err(DescriptorError::Long));
        let mut short = descriptors([2, 0, 0], &[]);
        short.extend([8, 4, 0, 0, 1, 3, 1, 1]);
        assert_eq!(functions(&short), Ok(vec![function(2, 0, 0)]));
    }
}
