// SPDX-License-Identifier: GPL-2.0-only
//! What SQE groups add to a submission queue entry.
//!
//! `sqe->flags` has eight bits and seven are taken. The last one,
//! [`IOSQE_HAS_EXT_FLAGS`], says that there are more flags: with it set, the two
//! bytes of `sqe->personality` are read as `ext_flags` and `ext_personality`.
//! [`ExtEntry`] gives both, for 64-byte and for 128-byte entries.
//!
//! The `io-uring` crate keeps the fields of an entry to itself. [`RawSqe`] is a
//! view of the same bytes, with every offset checked when this is compiled.

use std::io;
use std::mem::{align_of, offset_of, size_of};
use std::num::NonZeroU8;

use io_uring::squeue::{Entry, Entry128, EntryMarker, Flags};

/// Bit 7 of `sqe->flags`: `ext_flags` and `ext_personality` are in use.
pub const IOSQE_HAS_EXT_FLAGS: u8 = 1 << 7;

/// Bit 0 of `sqe->ext_flags`: the SQE belongs to a group that goes on with the
/// next SQE. The last SQE of a group does not have it.
pub const IOSQE_EXT_SQE_GROUP: u8 = 1 << 0;

/// `io_uring_params->features`: the kernel has SQE groups.
pub const IORING_FEAT_SQE_GROUP: u32 = 1 << 18;

/// [`IOSQE_HAS_EXT_FLAGS`] as the `io-uring` crate spells flags; it has no name
/// for this bit.
pub const HAS_EXT_FLAGS: Flags = Flags::from_bits_retain(IOSQE_HAS_EXT_FLAGS);

/// `struct io_uring_sqe`, with one plain name for each place. A union of the C
/// structure goes by its most general name.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RawSqe {
    /// `IORING_OP_*`
    pub opcode: u8,
    /// `IOSQE_*`
    pub flags: u8,
    /// I/O priority; flags of `send`, `recv` and `accept`
    pub ioprio: u16,
    /// File descriptor, or index of a registered file
    pub fd: i32,
    /// `off`, `addr2`, `cmd_op`
    pub off: u64,
    /// `addr`, `splice_off_in`
    pub addr: u64,
    /// Length of the buffer, or number of iovecs
    pub len: u32,
    /// `rw_flags`, `nop_flags`, `cancel_flags` and so on, by opcode
    pub op_flags: u32,
    /// Comes back in the CQE
    pub user_data: u64,
    /// `buf_index`, `buf_group`
    pub buf_index: u16,
    /// `IOSQE_EXT_*`, if `flags` has [`IOSQE_HAS_EXT_FLAGS`]; else the low byte
    /// of `personality` (on a little endian machine)
    pub ext_flags: u8,
    /// Registered personality, 1 to 255, or 0 for none, if `flags` has
    /// [`IOSQE_HAS_EXT_FLAGS`]; else the high byte of `personality`
    pub ext_personality: u8,
    /// `splice_fd_in`, `file_index`, `optlen`
    pub file_index: u32,
    /// `addr3`, `attr_ptr`, `optval`, the first half of a command's payload
    pub addr3: u64,
    /// `attr_type_mask`, the second half of a command's payload
    pub pad2: u64,
}

const _: () = {
    assert!(size_of::<RawSqe>() == 64);
    assert!(size_of::<Entry>() == 64);
    assert!(size_of::<Entry128>() == 128);
    assert!(align_of::<RawSqe>() == align_of::<Entry>());
    assert!(align_of::<RawSqe>() == align_of::<Entry128>());
    assert!(offset_of!(RawSqe, off) == 8);
    assert!(offset_of!(RawSqe, addr) == 16);
    assert!(offset_of!(RawSqe, len) == 24);
    assert!(offset_of!(RawSqe, op_flags) == 28);
    assert!(offset_of!(RawSqe, user_data) == 32);
    assert!(offset_of!(RawSqe, buf_index) == 40);
    assert!(offset_of!(RawSqe, ext_flags) == 42);
    assert!(offset_of!(RawSqe, ext_personality) == 43);
    assert!(offset_of!(RawSqe, file_index) == 44);
    assert!(offset_of!(RawSqe, addr3) == 48);
};

impl RawSqe {
    /// Whether the SQE says that the next SQE belongs to the same group.
    pub const fn in_group(&self) -> bool {
        self.flags & IOSQE_HAS_EXT_FLAGS != 0 && self.ext_flags & IOSQE_EXT_SQE_GROUP != 0
    }

    /// `sqe->personality` as it is read without [`IOSQE_HAS_EXT_FLAGS`].
    pub const fn personality(&self) -> u16 {
        u16::from_ne_bytes([self.ext_flags, self.ext_personality])
    }
}

/// An entry whose extended flags can be set.
///
/// ```
/// use harness::sqe::{ExtEntry, IOSQE_EXT_SQE_GROUP};
/// use io_uring::opcode;
///
/// let sqe = opcode::Nop::new().build().ext_flags(IOSQE_EXT_SQE_GROUP);
/// assert!(sqe.raw().in_group());
/// ```
pub trait ExtEntry: EntryMarker {
    /// The entry's first 64 bytes.
    fn raw(&self) -> &RawSqe;

    /// The entry's first 64 bytes. Whoever pushes the entry vouches for what
    /// was written here, as for everything else in it.
    fn raw_mut(&mut self) -> &mut RawSqe;

    /// Adds flags to `sqe->flags`.
    fn with_flags(mut self, flags: Flags) -> Self {
        self.raw_mut().flags |= flags.bits();
        self
    }

    /// Adds extended flags. On an entry that had a `personality`, this changes
    /// what those two bytes mean: set the personality afterwards, with
    /// [`ExtEntry::ext_personality`].
    fn ext_flags(mut self, ext_flags: u8) -> Self {
        let raw = self.raw_mut();
        raw.flags |= IOSQE_HAS_EXT_FLAGS;
        raw.ext_flags |= ext_flags;
        self
    }

    /// Uses a registered personality. Only the first 255 can be named once
    /// there are extended flags.
    fn ext_personality(mut self, personality: NonZeroU8) -> Self {
        let raw = self.raw_mut();
        raw.flags |= IOSQE_HAS_EXT_FLAGS;
        raw.ext_personality = personality.get();
        self
    }
}

impl ExtEntry for Entry {
    fn raw(&self) -> &RawSqe {
        // SAFETY: `Entry` is `repr(C)` around `struct io_uring_sqe`, which has
        // the size and the alignment of `RawSqe` (asserted above), no padding,
        // and is valid as any sequence of bytes, as is `RawSqe`.
        unsafe { &*std::ptr::from_ref(self).cast() }
    }

    fn raw_mut(&mut self) -> &mut RawSqe {
        // SAFETY: As in `raw`; the borrow is unique.
        unsafe { &mut *std::ptr::from_mut(self).cast() }
    }
}

impl ExtEntry for Entry128 {
    fn raw(&self) -> &RawSqe {
        // SAFETY: `Entry128` is `repr(C)` and begins with an `Entry`; see there.
        unsafe { &*std::ptr::from_ref(self).cast() }
    }

    fn raw_mut(&mut self) -> &mut RawSqe {
        // SAFETY: As in `raw`; the borrow is unique.
        unsafe { &mut *std::ptr::from_mut(self).cast() }
    }
}

/// What a kernel's io_uring says about itself, without a ring being set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Support {
    /// `IORING_FEAT_*`
    pub features: u64,
    /// `IORING_SETUP_*`
    pub setup_flags: u64,
    /// `IOSQE_*`; bit 7 is [`IOSQE_HAS_EXT_FLAGS`]
    pub sqe_flags: u64,
    /// `IOSQE_EXT_*`: the bits that `ext_flags` may have
    pub ext_flags: u32,
}

impl Support {
    /// Asks the kernel by `IORING_REGISTER_QUERY`. Kernels before 6.18 do not
    /// have it: the error is then `EINVAL`.
    pub fn query() -> io::Result<Self> {
        /// `struct io_uring_query_hdr`
        #[repr(C)]
        #[derive(Default)]
        struct Header {
            next_entry: u64,
            query_data: u64,
            query_op: u32,
            size: u32,
            result: i32,
            resv: [u32; 3],
        }

        /// `struct io_uring_query_opcode`
        #[repr(C)]
        #[derive(Default)]
        struct Opcodes {
            nr_request_opcodes: u32,
            nr_register_opcodes: u32,
            feature_flags: u64,
            ring_setup_flags: u64,
            enter_flags: u64,
            sqe_flags: u64,
            nr_query_opcodes: u32,
            // Padding before there were groups, and zero then.
            ext_flags: u32,
        }

        const IORING_REGISTER_QUERY: libc::c_uint = 35;
        const IO_URING_QUERY_OPCODES: u32 = 0;

        let mut opcodes = Opcodes::default();
        let mut header = Header {
            query_data: std::ptr::from_mut(&mut opcodes) as u64,
            query_op: IO_URING_QUERY_OPCODES,
            size: size_of::<Opcodes>() as u32,
            ..Header::default()
        };

        // SAFETY: The kernel reads and writes one header, whose `next_entry`
        // ends the list, and `size` bytes of `opcodes`; both outlive the call.
        let ret = unsafe {
            libc::syscall(
                libc::SYS_io_uring_register,
                -1,
                IORING_REGISTER_QUERY,
                std::ptr::from_mut(&mut header),
                0,
            )
        };
        if ret < 0 {
            return Err(io::Error::last_os_error());
        }
        if header.result < 0 {
            return Err(io::Error::from_raw_os_error(-header.result));
        }
        Ok(Self {
            features: opcodes.feature_flags,
            setup_flags: opcodes.ring_setup_flags,
            sqe_flags: opcodes.sqe_flags,
            ext_flags: opcodes.ext_flags,
        })
    }

    /// Whether the kernel has SQE groups.
    pub fn groups(&self) -> bool {
        self.features & u64::from(IORING_FEAT_SQE_GROUP) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use io_uring::{opcode, types};

    /// The view must agree with what the crate writes, field by field: a crate
    /// that moved one would otherwise be found out only in the guest.
    #[test]
    fn view_shows_what_the_crate_wrote() {
        let buf = 0x1000 as *mut u8;
        let sqe = opcode::ReadFixed::new(types::Fd(5), buf, 4096, 3)
            .offset(0x0001_0000_0000)
            .ioprio(9)
            .rw_flags(8)
            .build()
            .flags(Flags::ASYNC | Flags::IO_LINK)
            .personality(0x0201)
            .user_data(0xdead_beef);
        let raw = sqe.raw();
        assert_eq!(raw.opcode, opcode::ReadFixed::CODE);
        assert_eq!(raw.flags, (Flags::ASYNC | Flags::IO_LINK).bits());
        assert_eq!(raw.ioprio, 9);
        assert_eq!(raw.fd, 5);
        assert_eq!(raw.off, 0x0001_0000_0000);
        assert_eq!(raw.addr, 0x1000);
        assert_eq!(raw.len, 4096);
        assert_eq!(raw.op_flags, 8);
        assert_eq!(raw.user_data, 0xdead_beef);
        assert_eq!(raw.buf_index, 3);
        assert_eq!(raw.personality(), 0x0201);
        assert!(!raw.in_group());
    }

    #[test]
    fn ext_fields_share_the_bytes_of_personality() {
        let sqe = opcode::Nop::new()
            .build()
            .ext_flags(IOSQE_EXT_SQE_GROUP)
            .ext_personality(NonZeroU8::new(7).unwrap());
        let raw = sqe.raw();
        assert_eq!(raw.flags, IOSQE_HAS_EXT_FLAGS);
        assert_eq!(raw.ext_flags, IOSQE_EXT_SQE_GROUP);
        assert_eq!(raw.ext_personality, 7);
        assert_eq!(raw.personality(), u16::from_ne_bytes([1, 7]));
        assert!(raw.in_group());
    }

    #[test]
    fn wide_entries_have_the_same_view() {
        let sqe = Entry128::from(opcode::Nop::new().build().user_data(3)).ext_flags(1);
        assert_eq!(sqe.raw().user_data, 3);
        assert!(sqe.raw().in_group());
    }

    #[test]
    fn group_flag_without_bit_7_is_a_personality() {
        let mut sqe = opcode::Nop::new().build();
        sqe.raw_mut().ext_flags = IOSQE_EXT_SQE_GROUP;
        assert!(!sqe.raw().in_group());
    }
}
