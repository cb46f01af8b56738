//! Defines what a device says that it is, the names of classes, and what a rule for devices says.

use std::fmt;

/// The classes by name, as KubeArmor has them (<https://www.usb.org/defined-class-codes>).
pub(super) const CLASSES: [(&str, u8); 24] = [
    ("AUDIO", 1),
    ("COMMUNICATION-CDC", 2),
    ("HID", 3),
    ("PHYSICAL", 5),
    ("IMAGE", 6),
    ("PRINTER", 7),
    ("MASS-STORAGE", 8),
    ("HUB", 9),
    ("CDC-DATA", 10),
    ("SMART-CARD", 11),
    ("CONTENT-SECURITY", 13),
    ("VIDEO", 14),
    ("PERSONAL-HEALTHCARE", 15),
    ("AUDIO/VIDEO", 16),
    ("BILLBOARD", 17),
    ("TYPE-C-BRIDGE", 18),
    ("BULK-DISPLAY", 19),
    ("MCTP", 20),
    ("I3C", 60),
    ("DIAGNOSTIC", 220),
    ("WIRELESS-CONTROLLER", 224),
    ("MISCELLANEOUS", 239),
    ("APPLICATION-SPECIFIC", 254),
    ("VENDOR-SPECIFIC", 255),
];

/// The class that stands for all of them.
pub(super) const ALL: &str = "ALL";

/// The number of ports on the longest way from the host to a device, as USB permits it.
pub(super) const MAX_LEVEL: u8 = 6;

/// A `Function` is what a device, or one of its interfaces, says that it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Function {
    /// The class.
    pub class: u8,
    /// The subclass, which means something within its class alone.
    pub sub_class: u8,
    /// The protocol, which means something within its subclass alone.
    pub protocol: u8,
}

impl fmt::Display for Function {
    /// Writes it as KubeArmor does, such as `HID_1_1`; a class without a name by its number.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { class, sub_class, protocol } = self;
        match CLASSES.iter().find(|(_, number)| number == class) {
            Some((name, _)) => write!(f, "{name}_{sub_class}_{protocol}"),
            None => write!(f, "{class}_{sub_class}_{protocol}"),
        }
    }
}

/// A `DeviceRule` is a rule of the section `device`. What it does not give, it does not ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceRule {
    /// The class, which is not 0; `None`: all of them.
    pub class: Option<u8>,
    /// The subclass.
    pub sub_class: Option<u8>,
    /// The protocol.
    pub protocol: Option<u8>,
    /// The number of ports on the way from the host to the device: 1 for a device at a port of the host itself.
    pub level: Option<u8>,
}

impl DeviceRule {
    /// Returns whether the rule is about a function of a device at that level.
    pub(super) fn matches(&self, function: Function, level: u8) -> bool {
        self.class.is_none_or(|class| class == function.class)
            && self.sub_class.is_none_or(|sub_class| sub_class == function.sub_class)
            && self.protocol.is_none_or(|protocol| protocol == function.protocol)
            && self.level.is_none_or(|of| of == level)
    }

    /// Returns a sort key by which more specific rules come first.
    pub(super) fn specificity(&self) -> [bool; 4] {
        [self.level.is_none(), self.sub_class.is_none(), self.protocol.is_none(), self.class.is_none()]
    }
}
