"""Names that people bring from elsewhere, each with the setting that takes its place here.

They are those of diffusers' train_unconditional.py, of denoising-diffusion-pytorch, and what people type by habit.
"""

from collections.abc import Collection

_TABLE = """
lr train_lr                                                  | train.learning_rate classifier.learning_rate |
epochs num_epochs n_epochs num_train_epochs max_epochs       | train.num_images_seen | epochs x number of training images
steps num_steps n_steps max_steps max_train_steps iterations | train.num_images_seen | steps x train.batch_size
train_num_steps train_steps num_iterations                   | train.num_images_seen | steps x train.batch_size
steps num_steps n_steps inference_steps                      | num_inference_steps | reverse steps
batch bs batch_size train_batch_size                         | train.batch_size | of all processes together: 16 on 4 GPUs are 64
batch bs batch_size eval_batch_size                          | micro_batch_size | images of one forward pass
eval_batch_size num_samples n_samples num_images n_images n  | sample.num_images num_images |
num_variations num_blends num_per_image                      | num_images | of each input and start timestep
gradient_accumulation_steps gradient_accumulate_every        | train.micro_batch_size | train.batch_size over accumulation steps and processes
grad_accum accumulation_steps accumulate_grad_batches        | train.micro_batch_size | train.batch_size over accumulation steps and processes
resolution image_size img_size size                          | data.image_size | a side in pixels, or [height, width]
train_data_dir data_dir dataset dataset_name data_path data  | data.source source images | a folder, an archive, a table or a data set
folder image_folder images_dir input_dir train_dir           | data.source source images | a folder, an archive, a table or a data set
dataset_config_name                                          | data.subset subset |
class_cond num_classes num_class_embeds                      | model.class_conditional | true: the data say how many classes there are
model_config_name_or_path pretrained_model_name_or_path      | model.init_from | a folder or an id on the Hub, with its weights
pretrained pretrained_model checkpoint ckpt weights          | model.init_from | a folder or an id on the Hub, with its weights
output out output_path out_dir output_folder results_folder  | output_dir out |
output_dir outdir save_dir save_path results_dir             | output_dir out |
overwrite_output_dir overwrite force                         | output_dir out | another one: what holds something is never overwritten
center_crop                                                  | data.fit | crop, the default, cuts the longer side at both ends
random_flip augment_horizontal_flip hflip flip               | train.horizontal_flip |
save_images_epochs                                           | watch.preview_every_images | epochs x number of training images
save_and_sample_every sample_every sample_interval           | watch.preview_every_images | steps x train.batch_size
save_model_epochs save_every save_steps save_interval        | train.checkpoint_every | optimizer steps between checkpoints
checkpointing_steps checkpoint_steps save_freq               | train.checkpoint_every | optimizer steps between checkpoints
checkpoints_total_limit save_total_limit                     | train.keep_checkpoints |
resume_from_checkpoint resume_from                           | train.resume | auto, as it is: the same command goes on where it was
log_interval logging_steps print_every                       | train.log_every | optimizer steps
eval_every eval_interval eval_steps                          | train.evaluate_every | optimizer steps
lr_scheduler lr_scheduler_type                               | train.lr_schedule |
warmup warmup_steps lr_warmup                                | train.lr_warmup_steps | optimizer steps
adam_beta1 adam_beta2 beta1 beta2 betas                      | train.adam_betas | both, as [0.9, 0.999]
adam_weight_decay wd                                         | train.weight_decay |
eps                                                          | train.adam_epsilon |
grad_clip clip_grad_norm gradient_clip_val                   | train.max_grad_norm |
use_ema ema ema_rate ema_max_decay                           | train.ema_decay | such as 0.999; 0: no averaging
ema_inv_gamma ema_power ema_update_every                     | train.ema_decay | averages follow each step, and warm up by (1 + n) / (10 + n)
fp16 bf16 amp half mixed_precision_type dtype precision      | train.mixed_precision | fp16, bf16 or no
fp16 bf16 half dtype mixed_precision                         | precision | fp16, bf16 or fp32
min_snr_loss_weight snr_gamma                                | train.min_snr_gamma | such as 5
class_dropout cond_drop_prob p_uncond                        | train.label_dropout |
logger report_to log_with use_wandb wandb tensorboard        | watch.trackers | as [tensorboard] or [wandb]
logging_dir log_dir logdir                                   | output_dir | logs lie in the run folder
hub_model_id repo_id                                         | push_to_hub | user/name
hub_private_repo                                             | hub.private |
hub_token token                                              | push_to_hub | with the token of the login, so that no log holds it
workers num_workers dataloader_num_workers                   | train.num_threads num_threads | images are decoded once, before training
local_rank device gpus num_gpus n_gpu split_batches          | train.num_processes num_processes | the launcher starts them and gives each its device
timesteps n_timesteps num_timesteps diffusion_steps          | scheduler.num_train_timesteps | length of the chain
ddpm_num_steps noise_steps                                   | scheduler.num_train_timesteps | length of the chain
timesteps n_timesteps num_timesteps                          | num_inference_steps | reverse steps
ddpm_num_inference_steps sampling_timesteps sampling_steps   | sample.num_inference_steps num_inference_steps | reverse steps
ddim_steps inference_steps                                   | sample.num_inference_steps num_inference_steps | reverse steps
sampler solver                                               | sample.scheduler scheduler | ddpm, ddim or dpmsolver++
ddpm_beta_schedule noise_schedule                            | scheduler.beta_schedule |
objective pred_type parameterization                         | scheduler.prediction_type | epsilon, v_prediction or sample
learned_variance                                             | scheduler.variance_type |
dim dim_mults base_channels model_channels num_channels      | model.block_out_channels | one width a level, as [64, 128, 256]
in_channels convert_image_to                                 | data.channels | 1 or 3
preserve_input_precision                                     | data.channels | 1 or 3, of 8 bits each
num_res_blocks                                               | model.layers_per_block |
attention_resolutions full_attn                              | model.attention_levels | 0 is the finest
attn_dim_head head_dim                                       | model.attention_head_dim |
flash_attn xformers                                          | model.attention_backend |
enable_xformers_memory_efficient_attention                   | model.attention_backend | xformers
cfg cfg_scale guidance w                                     | sample.guidance_scale guidance_scale |
strength t t_start start start_timestep noise_level          | start_timesteps | denoising steps left to go, from 0 to 1000
label class class_id class_labels y                          | class_label |
calculate_fid num_fid_samples                                | watch.kid_every_images | KID while training; FID afterwards: fastddpm evaluate
random_seed manual_seed                                      | seed |
"""  # noqa: E501 - a table: a row a line

BORROWED: dict[str, list[tuple[str, str]]] = {}
"""name elsewhere -> settings here, each with what it takes instead; which of them there is depends on the verb"""
for _line in _TABLE.strip().splitlines():
    _names, _settings, _note = (part.strip() for part in _line.split("|"))
    for _name in _names.split():
        BORROWED.setdefault(_name, []).extend((setting, _note) for setting in _settings.split())


def borrowed(name: str, settings: Collection[str]) -> tuple[str, str] | None:
    """The setting that takes the place of a name from elsewhere, and what it takes, in words; None: not known.

    Args:
        name: also with a section before it, as `train.lr`, and with hyphens.
        settings: those that there are.
    """
    last = name.lower().replace("-", "_").rpartition(".")[2]
    return next(((setting, note) for setting, note in BORROWED.get(last, []) if setting in settings), None)
