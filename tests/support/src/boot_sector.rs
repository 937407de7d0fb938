//! An operating system of one sector: the smallest guest there is to test with.
//!
//! ```text
//! sector 0   code: print the text; write sector 1 to the disk; then power off, reset or halt
//!            text, 0
//!            55 aa at 510
//! sector 1   empty
//! ```

/// What the one-sector operating system does after it has spoken.
#[derive(Clone, Copy)]
pub enum Then {
    PowerOff,
    Reset,
    Halt,
    /// Says the same again, for ever.
    Flood,
    /// Fills the text screen after five seconds.
    Draw,
    /// Tells the panic device of the PC's port 0x505 that its kernel has panicked.
    Panic,
    /// Says `>`, then gives back what it gets on its serial port.
    Echo,
}

/// A disk of 1 MiB with the operating system. The code runs at 0x7c00, in real mode, with DL the disk's number.
pub fn disk(text: &str, then: Then) -> Vec<u8> {
    // The UART itself, with interrupts off: SeaBIOS' own console holds back a character until the next tick of its clock.
    let mut code = vec![
        0xfa, // cli
        0x31, 0xc0, // xor ax, ax
        0x8e, 0xd8, 0x8e, 0xc0, // mov ds, ax; mov es, ax
        0x52, // push dx
        0xbe, 0, 0,    // mov si, text (patched below)
        0xac, // next: lodsb
        0x84, 0xc0, // test al, al
        0x74, 0x12, // jz done
        0x88, 0xc4, // mov ah, al
        0xba, 0xfd, 0x03, // mov dx, 0x3fd: line status
        0xec, // wait: in al, dx
        0xa8, 0x20, // test al, 0x20: ready
        0x74, 0xfb, // jz wait
        0xba, 0xf8, 0x03, // mov dx, 0x3f8: data
        0x88, 0xe0, // mov al, ah
        0xee, // out dx, al
        0xeb, 0xe9, // jmp next
        0x5a, 0xfb, // done: pop dx; sti
        // Write a sector, to show that the file under test does not change.
        0xb8, 0x01, 0x03, // mov ax, 0x0301: write one sector
        0xbb, 0x00, 0x7c, // mov bx, 0x7c00: this one
        0xb9, 0x02, 0x00, // mov cx, 0x0002: as the second
        0xb6, 0x00, // mov dh, 0
        0xcd, 0x13, // int 0x13
    ];
    match then {
        // ACPI's control register on Q35 as SeaBIOS places it: sleep state 5.
        Then::PowerOff => code.extend([0xb8, 0x00, 0x20, 0xba, 0x04, 0x06, 0xef]), // mov ax, 0x2000; mov dx, 0x604; out dx, ax
        Then::Reset => code.extend([0xb0, 0x06, 0xba, 0xf9, 0x0c, 0xee]), // mov al, 6; mov dx, 0xcf9; out dx, al
        Then::Draw => code.extend([
            0x31, 0xc0, 0x8e, 0xd8, // xor ax, ax; mov ds, ax
            0x66, 0xa1, 0x6c,
            0x04, // mov eax, [0x46c]: the BIOS' clock, 18.2 ticks to a second
            0x66, 0x83, 0xc0, 0x5a, // add eax, 90
            0x66, 0x8b, 0x1e, 0x6c, 0x04, // wait: mov ebx, [0x46c]
            0x66, 0x39, 0xc3, 0x72, 0xf6, // cmp ebx, eax; jb wait
            0xb8, 0x00, 0xb8, 0x8e, 0xc0, // mov ax, 0xb800; mov es, ax
            0x31, 0xff, 0xb9, 0xd0, 0x07, // xor di, di; mov cx, 2000
            0xb8, 0x41, 0x0f, 0xfc, 0xf3, 0xab, // mov ax, 0x0f41; cld; rep stosw
        ]),
        Then::Echo => code.extend([
            // Without interrupts: SeaBIOS, which takes this port for a keyboard, would get some of it.
            0xfa, 0xb0, b'>', 0xba, 0xf8, 0x03,
            0xee, // cli; mov al, '>'; mov dx, 0x3f8; out dx, al
            0xba, 0xfd, 0x03, // again: mov dx, 0x3fd: line status
            0xec, 0xa8, 0x01, 0x74, 0xfb, // wait: in al, dx; test al, 1: data; jz wait
            0xba, 0xf8, 0x03, // mov dx, 0x3f8: data
            0xec, 0xee, 0xeb, 0xf1, // in al, dx; out dx, al; jmp again
        ]),
        Then::Panic => code.extend([0xba, 0x05, 0x05, 0xb0, 0x01, 0xee]), // mov dx, 0x505; mov al, 1; out dx, al
        Then::Halt | Then::Flood => {}
    }
    if let Then::Flood = then {
        let done = code.iter().position(|&byte| byte == 0x5a).unwrap();
        let message = 8_u16; // behind push dx
        let back = message.wrapping_sub(u16::try_from(done + 3).unwrap()).to_le_bytes();
        code[done..done + 3].copy_from_slice(&[0xe9, back[0], back[1]]); // jmp to the message
    }
    code.extend([0xf4, 0xeb, 0xfd]); // hlt; jmp to it
    let text_at = 0x7c00 + u16::try_from(code.len()).unwrap();
    code[9..11].copy_from_slice(&text_at.to_le_bytes());
    code.extend(text.bytes().chain([0]));
    assert!(code.len() <= 510);
    code.resize(510, 0);
    code.extend([0x55, 0xaa]);
    code.resize(1 << 20, 0);
    code
}
