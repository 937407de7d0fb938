//! Proof that a disk boots: how strong it is, and what shows that an operating system runs at all.

use serde::Serialize;

use crate::architecture::Architecture;

/// What counts as success, beside a clean power-off.
#[derive(Clone, Debug)]
pub enum Proof {
    /// The guest's own report, which a unit from outside makes it give. Where none comes, `Test::accept` says what else will do.
    Report,
    /// A line on the console that contains this: for guests that are made to say it.
    Console(String),
}

/// What a verdict rests on, the weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Nothing that a system which is up would show.
    #[serde(rename = "none")]
    Nothing,
    /// An operating system's kernel runs, has drawn something, and since then the screen stands still and shows no error.
    Screen,
    /// A login prompt.
    Login,
    /// The line on the console that was asked for.
    Message,
    /// The guest's own report.
    Report,
}

impl Level {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Nothing, Self::Screen, Self::Login, Self::Message, Self::Report];

    /// The name on command lines and in reports for programs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nothing => "none",
            Self::Screen => "screen",
            Self::Login => "login",
            Self::Message => "message",
            Self::Report => "report",
        }
    }

    /// What people call it.
    pub const fn described(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Screen => "screen stable without error",
            Self::Login => "login prompt",
            Self::Message => "message on the console",
            Self::Report => "guest report",
        }
    }

    /// Reads [`name`](Self::name).
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.name() == name)
    }
}

/// Whether the registers that QEMU's `info registers -a` shows are those of an operating system, which lives in the upper half of the
/// address space; firmware and boot loaders live where the memory is. On x86 the table of interrupts says so whatever runs, on Arm it
/// takes a processor that runs in the kernel, or at the level of programs.
pub(crate) fn kernel_runs(registers: &str, architecture: Architecture) -> bool {
    let above = |word: &str| {
        let digits = word.trim_start();
        let end = digits.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(digits.len());
        // 32-bit modes have registers of 8 digits.
        end == 16
            && u64::from_str_radix(&digits[..end], 16).is_ok_and(|address| address >= 0xffff << 48)
    };
    let after = |name| registers.match_indices(name).map(move |(at, _)| &registers[at + 4..]);
    match architecture {
        Architecture::X86_64 => after("IDT=").any(above),
        Architecture::Aarch64 => after(" PC=").any(above) || registers.contains(" EL0t"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back_and_are_those_of_reports() {
        for level in Level::ALL {
            assert_eq!(Level::parse(level.name()), Some(level));
            assert_eq!(serde_json::to_value(level).unwrap(), level.name());
        }
        assert!(Level::Screen < Level::Login && Level::Login < Level::Report);
    }

    #[test]
    fn firmware_is_no_operating_system() {
        let pc = |text: &str| kernel_runs(text, Architecture::X86_64);
        assert!(pc(
            "CPU#0\nGDT=     fffffe3c1a8ae000 0000007f\nIDT=     fffffe0000000000 00000fff\n"
        ));
        // OVMF, SeaBIOS, GRUB.
        assert!(!pc("GDT=     000000007f9dc000 00000047\nIDT=     000000007ef5b018 00000fff\n"));
        assert!(!pc("GDT=     000f6220 00000037\nIDT=     000f625e 00000000\n"));
        assert!(!pc("RAX=ffffffffffffffff\nIDT=     ffff0000 000003ff\n") && !pc(""));
        let arm = |text: &str| kernel_runs(text, Architecture::Aarch64);
        assert!(arm("CPU#0\n PC=ffff800008010000 X00=0\nPSTATE=60000005 -ZC- EL1h"));
        assert!(arm(" PC=0000ffff9a3c1d20 X00=0\nPSTATE=60001000 -ZC- EL0t"));
        assert!(!arm(" PC=000000013f5d1b90 X00=ffff800008010000\nPSTATE=60000205 -ZC- EL1h"));
    }
}
