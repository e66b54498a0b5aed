//! A script interpreter with the standardness flags that libbitcoinconsensus does not take:
//! STRICTENC, LOW_S, MINIMALDATA, MINIMALIF, NULLFAIL, WITNESS_PUBKEYTYPE, upgradable NOPs.
//!
//! It is no judge of consensus: libbitcoinconsensus runs over every input as well. Resource
//! limits (operations, stack and script size) are left to that.

use bitcoin::hashes::{Hash, hash160, ripemd160, sha1, sha256, sha256d};
use bitcoin::opcodes::Opcode;
use bitcoin::opcodes::all::*;
use bitcoin::script::{Instruction, read_scriptbool, write_scriptint};
use bitcoin::sighash::{EcdsaSighashType, SighashCache};
use bitcoin::{Amount, Script, Transaction, absolute};

use super::script_error::ScriptError;
use super::signature::{SigVersion, check_pubkey_encoding, check_signature_encoding, verify};

pub(super) type Stack = Vec<Vec<u8>>;
type Step = Result<(), ScriptError>;

const MAX_ELEMENT: usize = 520;
const MAX_MULTISIG_KEYS: i64 = 20;

/// The input whose script runs.
pub(super) struct Spend<'a> {
    pub(super) tx: &'a Transaction,
    pub(super) input: usize,
    pub(super) value: Amount,
}

/// One run of one script.
struct Run<'a> {
    spend: &'a Spend<'a>,
    version: SigVersion,
    script: &'a Script,
    /// Start of the code that signatures commit to.
    code_start: usize,
    stack: Stack,
    alt: Stack,
    conditions: Vec<bool>,
}

/// Runs a script on a stack and gives the stack it leaves.
pub(super) fn run(
    spend: &Spend<'_>,
    script: &Script,
    version: SigVersion,
    stack: Stack,
) -> Result<Stack, ScriptError> {
    let mut run = Run {
        spend,
        version,
        script,
        code_start: 0,
        stack,
        alt: Stack::new(),
        conditions: Vec::new(),
    };
    let mut instructions = script.instruction_indices();
    while let Some(next) = instructions.next() {
        let (at, instruction) = next.map_err(|_| ScriptError::BadOpcode)?;
        match instruction {
            Instruction::PushBytes(data) => run.push_data(at, data.as_bytes())?,
            Instruction::Op(op) => {
                let end = script.len() - instructions.as_script().len();
                run.operate(op, end)?;
            }
        }
    }
    if run.conditions.is_empty() { Ok(run.stack) } else { Err(ScriptError::UnbalancedConditional) }
}

/// True if the data could not be pushed shorter than by this opcode.
fn is_minimal_push(opcode: u8, data: &[u8]) -> bool {
    match data {
        [] => opcode == 0,
        [1..=16 | 0x81] => false,
        _ => match data.len() {
            length @ 0..=75 => usize::from(opcode) == length,
            76..=255 => opcode == OP_PUSHDATA1.to_u8(),
            256..=65535 => opcode == OP_PUSHDATA2.to_u8(),
            _ => true,
        },
    }
}

fn number_bytes(number: i64) -> Vec<u8> {
    let mut buffer = [0; 8];
    let length = write_scriptint(&mut buffer, number);
    buffer[..length].to_vec()
}

/// Reads a minimally encoded number of at most `limit` bytes.
fn read_number(bytes: &[u8], limit: usize) -> Result<i64, ScriptError> {
    let Some((last, lower)) = bytes.split_last() else { return Ok(0) };
    let padded = last & 0x7f == 0 && lower.last().is_none_or(|byte| byte & 0x80 == 0);
    if bytes.len() > limit || padded {
        return Err(ScriptError::ScriptNum);
    }
    let magnitude =
        lower.iter().rev().fold(i64::from(last & 0x7f), |n, byte| n << 8 | i64::from(*byte));
    Ok(if last & 0x80 == 0 { magnitude } else { -magnitude })
}

impl Run<'_> {
    fn executing(&self) -> bool {
        self.conditions.iter().all(|taken| *taken)
    }

    fn push_data(&mut self, at: usize, data: &[u8]) -> Step {
        if data.len() > MAX_ELEMENT {
            return Err(ScriptError::PushSize);
        }
        if self.executing() {
            if !is_minimal_push(self.script.as_bytes()[at], data) {
                return Err(ScriptError::MinimalData);
            }
            self.stack.push(data.to_vec());
        }
        Ok(())
    }

    fn operate(&mut self, op: Opcode, end: usize) -> Step {
        match op {
            OP_CAT | OP_SUBSTR | OP_LEFT | OP_RIGHT | OP_INVERT | OP_AND | OP_OR | OP_XOR
            | OP_2MUL | OP_2DIV | OP_MUL | OP_DIV | OP_MOD | OP_LSHIFT | OP_RSHIFT => {
                return Err(ScriptError::DisabledOpcode);
            }
            OP_CODESEPARATOR if self.version == SigVersion::Base => {
                return Err(ScriptError::OpCodeSeparator);
            }
            OP_IF | OP_NOTIF | OP_ELSE | OP_ENDIF => return self.branch(op),
            OP_VERIF | OP_VERNOTIF => return Err(ScriptError::BadOpcode),
            _ => {}
        }
        if !self.executing() {
            return Ok(());
        }
        match op {
            OP_CODESEPARATOR => self.code_start = end,
            OP_NOP => {}
            OP_VERIFY => self.verify_top(ScriptError::Verify)?,
            OP_RETURN => return Err(ScriptError::OpReturn),
            OP_CLTV => self.check_lock_time()?,
            OP_CSV => self.check_sequence()?,
            OP_NOP1 | OP_NOP4 | OP_NOP5 | OP_NOP6 | OP_NOP7 | OP_NOP8 | OP_NOP9 | OP_NOP10 => {
                return Err(ScriptError::DiscourageUpgradableNops);
            }
            OP_CHECKSIG => self.check_sig()?,
            OP_CHECKSIGVERIFY => {
                self.check_sig()?;
                self.verify_top(ScriptError::CheckSigVerify)?;
            }
            OP_CHECKMULTISIG => self.check_multisig()?,
            OP_CHECKMULTISIGVERIFY => {
                self.check_multisig()?;
                self.verify_top(ScriptError::CheckMultisigVerify)?;
            }
            _ => return self.shuffle(op),
        }
        Ok(())
    }

    fn branch(&mut self, op: Opcode) -> Step {
        match op {
            OP_IF | OP_NOTIF => {
                let mut taken = false;
                if self.executing() {
                    let argument = self.pop()?;
                    let minimal = matches!(argument.as_slice(), [] | [1]);
                    if self.version == SigVersion::WitnessV0 && !minimal {
                        return Err(ScriptError::MinimalIf);
                    }
                    taken = read_scriptbool(&argument) == (op == OP_IF);
                }
                self.conditions.push(taken);
            }
            OP_ELSE => {
                let top = self.conditions.last_mut().ok_or(ScriptError::UnbalancedConditional)?;
                *top = !*top;
            }
            _ => {
                self.conditions.pop().ok_or(ScriptError::UnbalancedConditional)?;
            }
        }
        Ok(())
    }

    fn shuffle(&mut self, op: Opcode) -> Step {
        match op {
            OP_TOALTSTACK => {
                let top = self.pop()?;
                self.alt.push(top);
            }
            OP_FROMALTSTACK => {
                let top = self.alt.pop().ok_or(ScriptError::InvalidAltstackOperation)?;
                self.stack.push(top);
            }
            OP_DROP => drop(self.pop()?),
            OP_2DROP => {
                self.need(2)?;
                self.stack.truncate(self.stack.len() - 2);
            }
            OP_DUP => self.copy(0)?,
            OP_OVER => self.copy(1)?,
            OP_2DUP => (0..2).try_for_each(|_| self.copy(1))?,
            OP_3DUP => (0..3).try_for_each(|_| self.copy(2))?,
            OP_2OVER => (0..2).try_for_each(|_| self.copy(3))?,
            OP_IFDUP => {
                if read_scriptbool(self.peek(0)?) {
                    self.copy(0)?;
                }
            }
            OP_DEPTH => self.push_number(self.stack.len() as i64),
            OP_SIZE => {
                let size = self.peek(0)?.len() as i64;
                self.push_number(size);
            }
            OP_NIP => {
                self.roll(1)?;
                self.pop()?;
            }
            OP_SWAP => self.roll(1)?,
            OP_ROT => self.roll(2)?,
            OP_2SWAP => (0..2).try_for_each(|_| self.roll(3))?,
            OP_2ROT => (0..2).try_for_each(|_| self.roll(5))?,
            OP_TUCK => {
                self.roll(1)?;
                self.copy(1)?;
            }
            OP_PICK | OP_ROLL => {
                self.need(2)?;
                let depth = usize::try_from(self.pop_number()?)
                    .map_err(|_| ScriptError::InvalidStackOperation)?;
                if op == OP_PICK { self.copy(depth)? } else { self.roll(depth)? }
            }
            OP_EQUAL | OP_EQUALVERIFY => {
                let (a, b) = (self.pop()?, self.pop()?);
                self.push_bool(a == b);
                if op == OP_EQUALVERIFY {
                    self.verify_top(ScriptError::EqualVerify)?;
                }
            }
            _ => return self.compute(op),
        }
        Ok(())
    }

    fn compute(&mut self, op: Opcode) -> Step {
        match op {
            OP_PUSHNUM_NEG1 => self.push_number(-1),
            op if (OP_PUSHNUM_1.to_u8()..=OP_PUSHNUM_16.to_u8()).contains(&op.to_u8()) => {
                self.push_number(i64::from(op.to_u8() - OP_PUSHNUM_1.to_u8()) + 1);
            }
            OP_RIPEMD160 => self.hash(|b| ripemd160::Hash::hash(b).as_byte_array().to_vec())?,
            OP_SHA1 => self.hash(|b| sha1::Hash::hash(b).as_byte_array().to_vec())?,
            OP_SHA256 => self.hash(|b| sha256::Hash::hash(b).as_byte_array().to_vec())?,
            OP_HASH160 => self.hash(|b| hash160::Hash::hash(b).as_byte_array().to_vec())?,
            OP_HASH256 => self.hash(|b| sha256d::Hash::hash(b).as_byte_array().to_vec())?,
            OP_1ADD => self.unary(|n| n + 1)?,
            OP_1SUB => self.unary(|n| n - 1)?,
            OP_NEGATE => self.unary(|n| -n)?,
            OP_ABS => self.unary(i64::abs)?,
            OP_NOT => self.unary(|n| i64::from(n == 0))?,
            OP_0NOTEQUAL => self.unary(|n| i64::from(n != 0))?,
            OP_ADD => self.binary(|a, b| a + b)?,
            OP_SUB => self.binary(|a, b| a - b)?,
            OP_BOOLAND => self.binary(|a, b| i64::from(a != 0 && b != 0))?,
            OP_BOOLOR => self.binary(|a, b| i64::from(a != 0 || b != 0))?,
            OP_NUMEQUAL => self.binary(|a, b| i64::from(a == b))?,
            OP_NUMEQUALVERIFY => {
                self.binary(|a, b| i64::from(a == b))?;
                self.verify_top(ScriptError::NumEqualVerify)?;
            }
            OP_NUMNOTEQUAL => self.binary(|a, b| i64::from(a != b))?,
            OP_LESSTHAN => self.binary(|a, b| i64::from(a < b))?,
            OP_GREATERTHAN => self.binary(|a, b| i64::from(a > b))?,
            OP_LESSTHANOREQUAL => self.binary(|a, b| i64::from(a <= b))?,
            OP_GREATERTHANOREQUAL => self.binary(|a, b| i64::from(a >= b))?,
            OP_MIN => self.binary(i64::min)?,
            OP_MAX => self.binary(i64::max)?,
            OP_WITHIN => {
                self.need(3)?;
                let (max, min, n) = (self.pop_number()?, self.pop_number()?, self.pop_number()?);
                self.push_bool((min..max).contains(&n));
            }
            _ => return Err(ScriptError::BadOpcode),
        }
        Ok(())
    }

    fn check_lock_time(&mut self) -> Step {
        let wanted = read_number(self.peek(0)?, 5)?;
        let wanted = u64::try_from(wanted).map_err(|_| ScriptError::NegativeLocktime)?;
        let lock = self.spend.tx.lock_time.to_consensus_u32();
        let threshold = u64::from(absolute::LOCK_TIME_THRESHOLD);
        let same_kind = (wanted < threshold) == (u64::from(lock) < threshold);
        let enabled = self.sequence() != u32::MAX;
        if same_kind && enabled && wanted <= u64::from(lock) {
            Ok(())
        } else {
            Err(ScriptError::UnsatisfiedLocktime)
        }
    }

    fn check_sequence(&mut self) -> Step {
        const DISABLE: u64 = 1 << 31;
        const TYPE: u64 = 1 << 22;
        const MASK: u64 = 0xffff;
        let wanted = read_number(self.peek(0)?, 5)?;
        let wanted = u64::try_from(wanted).map_err(|_| ScriptError::NegativeLocktime)?;
        if wanted & DISABLE != 0 {
            return Ok(());
        }
        let actual = u64::from(self.sequence());
        let enabled = self.spend.tx.version.0 as u32 >= 2 && actual & DISABLE == 0;
        let same_kind = wanted & TYPE == actual & TYPE;
        if enabled && same_kind && wanted & MASK <= actual & MASK {
            Ok(())
        } else {
            Err(ScriptError::UnsatisfiedLocktime)
        }
    }

    fn sequence(&self) -> u32 {
        let input = self.spend.tx.input.get(self.spend.input);
        input.map_or(u32::MAX, |input| input.sequence.to_consensus_u32())
    }

    fn check_sig(&mut self) -> Step {
        self.need(2)?;
        let (key, signature) = (self.pop()?, self.pop()?);
        let valid = self.is_signed(&signature, &key)?;
        if !valid && !signature.is_empty() {
            return Err(ScriptError::SigNullFail);
        }
        self.push_bool(valid);
        Ok(())
    }

    fn check_multisig(&mut self) -> Step {
        let keys = self.pop_number()?;
        if !(0..=MAX_MULTISIG_KEYS).contains(&keys) {
            return Err(ScriptError::PubkeyCount);
        }
        let keys = self.pop_many(keys as usize)?;
        let threshold = self.pop_number()?;
        if threshold < 0 || threshold > keys.len() as i64 {
            return Err(ScriptError::SigCount);
        }
        let signatures = self.pop_many(threshold as usize)?;
        // Keys and signatures keep one order; each key is tried once.
        let (mut key, mut matched) = (0, 0);
        while matched < signatures.len() && signatures.len() - matched <= keys.len() - key {
            if self.is_signed(&signatures[matched], &keys[key])? {
                matched += 1;
            }
            key += 1;
        }
        let valid = matched == signatures.len();
        if !valid && signatures.iter().any(|signature| !signature.is_empty()) {
            return Err(ScriptError::SigNullFail);
        }
        if !self.pop()?.is_empty() {
            return Err(ScriptError::SigNullDummy);
        }
        self.push_bool(valid);
        Ok(())
    }

    fn is_signed(&self, signature: &[u8], key: &[u8]) -> Result<bool, ScriptError> {
        check_signature_encoding(signature)?;
        check_pubkey_encoding(key, self.version)?;
        let Some(hash_type) = signature.last() else { return Ok(false) };
        let digest = self.digest(u32::from(*hash_type));
        Ok(digest.is_some_and(|digest| verify(signature, key, digest)))
    }

    fn digest(&self, hash_type: u32) -> Option<[u8; 32]> {
        let code = Script::from_bytes(self.script.as_bytes().get(self.code_start..)?);
        let Spend { tx, input, value } = *self.spend;
        let mut cache = SighashCache::new(tx);
        match self.version {
            SigVersion::WitnessV0 => {
                let hash_type = EcdsaSighashType::from_standard(hash_type).ok()?;
                let hash = cache.p2wsh_signature_hash(input, code, value, hash_type).ok()?;
                Some(hash.to_byte_array())
            }
            // A signature inside its own script (FindAndDelete) is left to consensus.
            SigVersion::Base => {
                Some(cache.legacy_signature_hash(input, code, hash_type).ok()?.to_byte_array())
            }
        }
    }

    fn need(&self, count: usize) -> Step {
        if self.stack.len() < count { Err(ScriptError::InvalidStackOperation) } else { Ok(()) }
    }

    fn index(&self, depth: usize) -> Result<usize, ScriptError> {
        let below = depth.checked_add(1).and_then(|n| self.stack.len().checked_sub(n));
        below.ok_or(ScriptError::InvalidStackOperation)
    }

    fn peek(&self, depth: usize) -> Result<&[u8], ScriptError> {
        self.index(depth).map(|index| self.stack[index].as_slice())
    }

    fn pop(&mut self) -> Result<Vec<u8>, ScriptError> {
        self.stack.pop().ok_or(ScriptError::InvalidStackOperation)
    }

    /// Takes elements off the top, topmost first.
    fn pop_many(&mut self, count: usize) -> Result<Stack, ScriptError> {
        (0..count).map(|_| self.pop()).collect()
    }

    fn pop_number(&mut self) -> Result<i64, ScriptError> {
        read_number(&self.pop()?, 4)
    }

    fn push_number(&mut self, number: i64) {
        self.stack.push(number_bytes(number));
    }

    fn push_bool(&mut self, value: bool) {
        self.push_number(i64::from(value));
    }

    fn verify_top(&mut self, error: ScriptError) -> Step {
        if read_scriptbool(&self.pop()?) { Ok(()) } else { Err(error) }
    }

    fn copy(&mut self, depth: usize) -> Step {
        let copy = self.peek(depth)?.to_vec();
        self.stack.push(copy);
        Ok(())
    }

    fn roll(&mut self, depth: usize) -> Step {
        let index = self.index(depth)?;
        let element = self.stack.remove(index);
        self.stack.push(element);
        Ok(())
    }

    fn hash(&mut self, function: impl Fn(&[u8]) -> Vec<u8>) -> Step {
        let top = self.pop()?;
        self.stack.push(function(&top));
        Ok(())
    }

    fn unary(&mut self, function: impl Fn(i64) -> i64) -> Step {
        let n = self.pop_number()?;
        self.push_number(function(n));
        Ok(())
    }

    fn binary(&mut self, function: impl Fn(i64, i64) -> i64) -> Step {
        self.need(2)?;
        let (b, a) = (self.pop_number()?, self.pop_number()?);
        self.push_number(function(a, b));
        Ok(())
    }
}
