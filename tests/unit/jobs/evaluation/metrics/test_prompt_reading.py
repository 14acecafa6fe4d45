import torch

from jobs.evaluation.metrics.prompt_reading import BackboneReader, Candidate, ClassifierReader


class KnowingBackbone:
    """Predicts the right velocity where the prompt names the sample's brightness."""

    device = torch.device("cpu")
    dtype = torch.float32

    def encode_prompts(self, prompts):
        return [torch.tensor([[float(prompt)]]) for prompt in prompts]

    def encode_images(self, images):
        return images.mean((1, 2, 3), keepdim=True)

    def noise(self, shape, generator):
        return torch.randn(shape, generator=generator)

    def velocity(self, latents, sigmas, prompt_embeds, lora=None):
        claimed = torch.stack([embed[0, 0] for embed in prompt_embeds]).view(-1, 1, 1, 1)
        sigmas = sigmas.view(-1, 1, 1, 1)
        noise = (latents - (1 - sigmas) * claimed) / sigmas
        return noise - claimed


def test_backbone_reader_takes_the_prompt_that_explains_the_sample():
    shades = torch.tensor([0.2, 0.5, 0.9])
    samples = shades.view(3, 1, 1, 1).expand(3, 3, 8, 8)
    options = [Candidate(name, str(2 * shade - 1)) for name, shade in
               (("dark", 0.2), ("grey", 0.5), ("light", 0.9))]  # fmt: skip
    reader = BackboneReader(KnowingBackbone(), batch_size=4)
    assert reader.read(samples, [options] * 3) == ["dark", "grey", "light"]
    assert reader.read(samples, [options[1:]] * 3) == ["grey", "grey", "light"]


def test_classifier_reader_hands_over_pixels():
    class Brightness:
        contents = ("dark", "light")

        def predict(self, images):
            return ["light" if image.getpixel((0, 0))[0] > 127 else "dark" for image in images]

    samples = torch.tensor([0.1, 0.9]).view(2, 1, 1, 1).expand(2, 3, 4, 4)
    assert ClassifierReader(Brightness()).read(samples, [[], []]) == ["dark", "light"]
