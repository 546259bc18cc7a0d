//! The tape: a record of the operators that ran, for the backward pass.

use std::fmt;
use std::sync::Arc;

use simclr_kernels::Write;
use simclr_kernels::recycle::emptied;
use smallvec::SmallVec;

use crate::ops::Recorded;
use crate::spare::{BufferUpdates, Spare};
use crate::{Collective, EngineError, ParameterId, Parameters, Result, Tensor};

/// Whether BatchNorm normalises by the batch or by its running averages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// By the batch, which also updates the running averages; the tape records.
    Train,
    /// By the running averages; nothing is recorded.
    Eval,
    /// By the running averages, while the tape records: for training with frozen normalisation.
    TrainFrozenNorm,
}

/// A value on the tape.
#[derive(Clone, Debug)]
pub struct Var {
    tensor: Tensor,
    node: Option<usize>,
    sums: Option<Tensor>,
}

impl Var {
    /// The value.
    pub fn tensor(&self) -> &Tensor {
        &self.tensor
    }

    /// Whether a gradient flows back through this value.
    pub fn needs_gradient(&self) -> bool {
        self.node.is_some()
    }

    /// Per-channel [sum; C, sum of squares; C] over all pixels, if the operator that made the value computed them.
    pub fn channel_sums(&self) -> Option<&Tensor> {
        self.sums.as_ref()
    }

    /// Attaches the value's channel sums, for a BatchNorm that may follow.
    pub(crate) fn with_channel_sums(self, sums: Option<Tensor>) -> Var {
        Var { sums, ..self }
    }

    fn node(&self) -> Option<usize> {
        self.node
    }
}

/// The nodes of an operator's inputs; `None` for an input that needs no gradient.
type Inputs = SmallVec<[Option<usize>; 4]>;

#[allow(
    clippy::large_enum_variant,
    reason = "a box around the large variant would be allocated at every step"
)]
#[derive(Debug)]
pub(crate) enum Node<'a> {
    /// A parameter whose gradient is wanted.
    Parameter(ParameterId),
    /// An input of a checkpointed segment.
    SegmentInput,
    Operator {
        inputs: Inputs,
        backward: Option<Recorded<'a>>,
    },
}

/// A part of a network that can be run again: see [`Tape::checkpoint`].
pub trait Segment<'a>: Sync {
    /// Computes the output from `inputs`. It must depend on nothing but these and parameters.
    ///
    /// # Errors
    /// Those of its operators.
    fn forward(&'a self, tape: &mut Tape<'a>, inputs: &[Var]) -> Result<Var>;
}

impl<'a, F> Segment<'a> for F
where
    F: Fn(&mut Tape<'a>, &[Var]) -> Result<Var> + Sync,
{
    fn forward(&'a self, tape: &mut Tape<'a>, inputs: &[Var]) -> Result<Var> {
        self(tape, inputs)
    }
}

/// Records operators as they run, so that gradients can flow back.
///
/// `'a` is how long the network, its parameters and the collective are borrowed.
pub struct Tape<'a> {
    parameters: &'a Parameters,
    collective: &'a dyn Collective,
    mode: Mode,
    nodes: Vec<Node<'a>>,
    /// How often each parameter was used, including inside checkpointed segments.
    uses: Vec<usize>,
    buffer_updates: Vec<(ParameterId, Tensor)>,
    /// The coefficients that BatchNorms note in a segment's first run, and those left for its second run, last first.
    noted: Vec<BatchCoefficients>,
    known: Vec<BatchCoefficients>,
    spare: Arc<Spare>,
    /// The first run of a checkpointed segment records nothing; the second leaves running averages alone.
    recording: bool,
    updating_buffers: bool,
}

/// A BatchNorm's coefficients, (4, C), and the number of values behind each of its batch statistics.
pub(crate) type BatchCoefficients = (Tensor, f64);

impl<'a> Tape<'a> {
    /// An empty tape over a network's parameters.
    pub fn new(parameters: &'a Parameters, mode: Mode, collective: &'a dyn Collective) -> Tape<'a> {
        let spare = parameters.spare.clone();
        let mut uses = spare.uses.take();
        uses.resize(parameters.len(), 0);
        Tape {
            parameters,
            collective,
            mode,
            nodes: emptied(spare.nodes.take()),
            uses,
            buffer_updates: spare.averages.take(),
            noted: Vec::new(),
            known: Vec::new(),
            spare,
            recording: mode != Mode::Eval,
            updating_buffers: mode == Mode::Train,
        }
    }

    /// How BatchNorm behaves.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The workers of this run.
    pub fn collective(&self) -> &'a dyn Collective {
        self.collective
    }

    /// The parameters that this tape was made for.
    pub fn parameters(&self) -> &'a Parameters {
        self.parameters
    }

    /// A value that needs no gradient.
    pub fn input(&mut self, tensor: Tensor) -> Var {
        Var { tensor, node: None, sums: None }
    }

    /// A parameter. Call this at every use of it: its gradient is complete once backward has passed the first of these
    /// uses.
    pub fn parameter(&mut self, id: ParameterId) -> Var {
        let tensor = self.parameters.get(id).clone();
        self.uses[id.index()] += 1;
        let recorded = self.recording && self.parameters.kind(id).is_trained();
        let node = recorded.then(|| self.push(Node::Parameter(id)));
        Var { tensor, node, sums: None }
    }

    /// Records an operator that made `output` from `inputs`. `backward` is called only if the tape records and some
    /// input needs a gradient; otherwise nothing is kept for it.
    pub(crate) fn record<B: Into<Recorded<'a>>>(
        &mut self,
        inputs: &[&Var],
        output: Tensor,
        backward: impl FnOnce() -> B,
    ) -> Var {
        let node = self.records(inputs).then(|| {
            let inputs = inputs.iter().map(|var| var.node()).collect();
            self.push(Node::Operator { inputs, backward: Some(backward().into()) })
        });
        Var { tensor: output, node, sums: None }
    }

    /// Whether an operator on `inputs` would be recorded.
    pub(crate) fn records(&self, inputs: &[&Var]) -> bool {
        self.recording && inputs.iter().any(|var| var.needs_gradient())
    }

    /// Notes the new value of a running average. The caller applies it through [`Tape::into_buffer_updates`], once it
    /// knows that the step is sound.
    pub fn update_buffer(&mut self, id: ParameterId, value: Tensor) {
        if self.updating_buffers {
            self.buffer_updates.push((id, value));
        }
    }

    /// Takes the coefficients of the next BatchNorm, if the segment's first run noted them.
    pub(crate) fn known_coefficients(&mut self) -> Option<BatchCoefficients> {
        self.known.pop()
    }

    /// Whether there are still coefficients that the segment's first run noted.
    pub(crate) fn knows_coefficients(&self) -> bool {
        !self.known.is_empty()
    }

    /// In a segment's first run, notes coefficients so that the second need not exchange sums again.
    pub(crate) fn note_coefficients(&mut self, coefficients: &BatchCoefficients) {
        if !self.recording {
            self.noted.push(coefficients.clone());
        }
    }

    /// Runs `segment`, keeping only its inputs and its BatchNorms' coefficients: backward runs it again to compute the
    /// rest.
    ///
    /// The result is exact, BatchNorm over the whole batch included.
    ///
    /// # Errors
    /// Those of the segment.
    pub fn checkpoint(&mut self, inputs: &[&Var], segment: &'a dyn Segment<'a>) -> Result<Var> {
        let blind: SmallVec<[Var; 2]> = inputs.iter().map(|&var| Var { node: None, ..var.clone() }).collect();
        if !self.recording {
            return segment.forward(self, &blind);
        }
        self.recording = false;
        self.noted = self.spare.coefficients.take();
        let output = segment.forward(self, &blind);
        self.recording = true;
        let noted = std::mem::take(&mut self.noted);
        let output = output?;
        let (parameters, collective, mode) = (self.parameters, self.collective, self.mode);
        let nodes: Inputs = inputs.iter().map(|var| var.node()).collect();
        let backward = SegmentBackward { parameters, collective, mode, inputs: blind, noted, segment };
        let node = self.push(Node::Operator { inputs: nodes, backward: Some(backward.into()) });
        Ok(Var { tensor: output.tensor, node: Some(node), sums: None })
    }

    /// Walks back from `output` with its gradient `dy` and returns the gradients of all parameters that `output`
    /// depends on. This works only once: the walk frees what operators kept, whether a gradient reached them or not.
    ///
    /// # Errors
    /// Those of the kernels, and [`EngineError::Value`] if `output` depends on no parameter, or on an operator that
    /// backward has already passed.
    pub fn backward(&mut self, output: &Var, dy: Tensor) -> Result<Gradients> {
        self.backward_with(output, dy, &mut |_, _| Ok(()))
    }

    /// Like [`Tape::backward`], but calls `complete` once for each parameter, as soon as its gradient is final. The
    /// walk continues when `complete` returns.
    ///
    /// # Errors
    /// As [`Tape::backward`], and those of `complete`.
    pub fn backward_with(
        &mut self,
        output: &Var,
        dy: Tensor,
        complete: &mut dyn FnMut(ParameterId, &mut Tensor) -> Result<()>,
    ) -> Result<Gradients> {
        let mut gradients = Gradients::new(&self.spare, &self.uses);
        let Some(last) = output.node() else {
            return Err(EngineError::Value {
                op: "backward",
                what: "the value depends on no parameter, or the tape did not record".into(),
            });
        };
        if output.tensor.shape() != dy.shape() {
            return Err(EngineError::shape(
                "backward",
                format!("a gradient {:?}", output.tensor.shape()),
                dy.shape(),
            ));
        }
        let slots = self.walk(last, dy, &mut gradients, complete)?;
        self.spare.gradients.put(slots);
        // Parameters with a use that the walk did not reach, because `output` does not depend on it.
        for id in self.parameters.ids() {
            if std::mem::take(&mut gradients.awaited[id.index()]) > 0
                && let Some(gradient) = &mut gradients.by_parameter[id.index()]
            {
                complete(id, gradient)?;
            }
        }
        Ok(gradients)
    }

    /// The walk itself. Returns the gradients that reached a segment's inputs, indexed by node.
    fn walk(
        &mut self,
        last: usize,
        dy: Tensor,
        gradients: &mut Gradients,
        complete: &mut dyn FnMut(ParameterId, &mut Tensor) -> Result<()>,
    ) -> Result<Vec<Option<Tensor>>> {
        let mut slots = self.spare.gradients.take();
        slots.resize(last + 1, None);
        slots[last] = Some(dy);
        for index in (0..=last).rev() {
            match &mut self.nodes[index] {
                Node::SegmentInput => {}
                Node::Parameter(id) => {
                    let place = &mut gradients.by_parameter[id.index()];
                    match (slots[index].take(), &mut *place) {
                        (Some(gradient), Some(sum)) => sum.add_assign(&gradient)?,
                        (Some(gradient), None) => *place = Some(gradient),
                        (None, _) => {}
                    }
                    let awaited = &mut gradients.awaited[id.index()];
                    *awaited = awaited.saturating_sub(1);
                    if *awaited == 0
                        && let Some(gradient) = place
                    {
                        complete(*id, gradient)?;
                    }
                }
                Node::Operator { inputs, backward } => {
                    // Taken even if no gradient arrived, so that the walk frees what the operator kept.
                    let (inputs, backward) = (std::mem::take(inputs), backward.take());
                    let Some(gradient) = slots[index].take() else { continue };
                    let Some(backward) = backward else {
                        let what = "backward has already freed what this operator kept: record it again";
                        return Err(EngineError::Value { op: "backward", what: what.into() });
                    };
                    let mut context =
                        BackwardContext { inputs: &inputs, slots: &mut slots, gradients, complete };
                    backward.backward(gradient, &mut context)?;
                }
            }
        }
        Ok(slots)
    }

    /// The new values of running averages, in the order in which the operators ran.
    pub fn into_buffer_updates(mut self) -> BufferUpdates {
        BufferUpdates { list: std::mem::take(&mut self.buffer_updates), spare: self.spare.clone() }
    }

    fn push(&mut self, node: Node<'a>) -> usize {
        self.nodes.push(node);
        self.nodes.len() - 1
    }
}

impl Drop for Tape<'_> {
    fn drop(&mut self) {
        self.spare.nodes.put(std::mem::take(&mut self.nodes));
        self.spare.uses.put(std::mem::take(&mut self.uses));
        self.spare.averages.put(std::mem::take(&mut self.buffer_updates));
        self.spare.coefficients.put(std::mem::take(&mut self.known));
    }
}

impl fmt::Debug for Tape<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tape({:?}, {} nodes)", self.mode, self.nodes.len())
    }
}

/// Where an operator's backward leaves the gradients of its inputs.
pub(crate) struct BackwardContext<'b> {
    inputs: &'b [Option<usize>],
    slots: &'b mut [Option<Tensor>],
    gradients: &'b mut Gradients,
    complete: &'b mut dyn FnMut(ParameterId, &mut Tensor) -> Result<()>,
}

impl BackwardContext<'_> {
    /// How many inputs the operator was recorded with.
    pub(crate) fn inputs(&self) -> usize {
        self.inputs.len()
    }

    /// Whether the gradient of input number `input` is wanted.
    pub(crate) fn wants(&self, input: usize) -> bool {
        self.inputs[input].is_some()
    }

    /// The tensor for the gradient of input number `input`, for an operator that can add in place: the sum of what the
    /// input's other users have given, to be added to, or a new one from `empty`, to be overwritten. The operator then
    /// hands it over with `give`.
    pub(crate) fn sum(&mut self, input: usize, empty: impl FnOnce() -> Tensor) -> (Tensor, Write) {
        match self.inputs[input].and_then(|node| self.slots[node].take()) {
            Some(known) => (known, Write::Add),
            None => (empty(), Write::Over),
        }
    }

    /// Hands over the gradient of an input: moves it if it is the first, else adds it to that of the other users.
    pub(crate) fn give(&mut self, input: usize, gradient: Tensor) -> Result<()> {
        let Some(node) = self.inputs[input] else {
            return Ok(());
        };
        match &mut self.slots[node] {
            Some(sum) => sum.add_assign(&gradient),
            empty => {
                *empty = Some(gradient);
                Ok(())
            }
        }
    }
}

/// A checkpointed segment, to be run again.
pub(crate) struct SegmentBackward<'a> {
    parameters: &'a Parameters,
    collective: &'a dyn Collective,
    mode: Mode,
    inputs: SmallVec<[Var; 2]>,
    noted: Vec<BatchCoefficients>,
    segment: &'a dyn Segment<'a>,
}

impl SegmentBackward<'_> {
    pub(crate) fn backward(self, dy: Tensor, context: &mut BackwardContext) -> Result<()> {
        let mut tape = Tape::new(self.parameters, self.mode, self.collective);
        tape.updating_buffers = false;
        tape.known = self.noted;
        tape.known.reverse();
        let mut leaves: SmallVec<[Var; 2]> = SmallVec::new();
        for (input, var) in self.inputs.into_iter().enumerate() {
            let node = context.wants(input).then(|| tape.push(Node::SegmentInput));
            leaves.push(Var { node, ..var });
        }
        let output = self.segment.forward(&mut tape, &leaves)?;
        let Some(last) = output.node() else { return Ok(()) };
        let nodes: Inputs = leaves.iter().map(Var::node).collect();
        drop((leaves, output));
        let mut slots = tape.walk(last, dy, context.gradients, context.complete)?;
        for (input, node) in nodes.into_iter().enumerate() {
            if let Some(gradient) = node.and_then(|node| slots[node].take()) {
                context.give(input, gradient)?;
            }
        }
        tape.spare.gradients.put(slots);
        Ok(())
    }
}

/// The gradients of a network's parameters.
#[derive(Debug)]
pub struct Gradients {
    by_parameter: Vec<Option<Tensor>>,
    /// Uses of each parameter that backward has not passed yet.
    awaited: Vec<usize>,
    spare: Arc<Spare>,
}

impl Drop for Gradients {
    fn drop(&mut self) {
        self.spare.gradients.put(std::mem::take(&mut self.by_parameter));
        self.spare.uses.put(std::mem::take(&mut self.awaited));
    }
}

impl Gradients {
    fn new(spare: &Arc<Spare>, uses: &[usize]) -> Gradients {
        let (mut by_parameter, mut awaited) = (spare.gradients.take(), spare.uses.take());
        by_parameter.resize(uses.len(), None);
        awaited.extend_from_slice(uses);
        Gradients { by_parameter, awaited, spare: spare.clone() }
    }

    /// The gradient of a parameter, if the loss depended on it.
    pub fn get(&self, id: ParameterId) -> Option<&Tensor> {
        self.by_parameter.get(id.index())?.as_ref()
    }

    /// Replaces each gradient by its sum over all workers. On a GPU this is one exchange.
    ///
    /// # Errors
    /// Those of [`Collective::all_reduce_tensors`].
    pub fn all_reduce(&mut self, collective: &dyn Collective) -> Result<()> {
        collective.all_reduce_tensors(&mut self.by_parameter.iter_mut().flatten())
    }

    /// The parameters that have a gradient, in order, each with its gradient.
    pub fn iter(&self) -> impl Iterator<Item = (ParameterId, &Tensor)> {
        let gradients = self.by_parameter.iter().enumerate();
        gradients.filter_map(|(i, gradient)| Some((ParameterId::from_index(i), gradient.as_ref()?)))
    }
}
